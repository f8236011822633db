use tokio::sync::watch;

use super::Behavior;
use crate::runtime::Exit;

/// The strongest thing that a container was told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Run,
    Stop,
    End(Exit),
    Kill,
}

impl Order {
    fn rank(self) -> u8 {
        match self {
            Self::Run => 0,
            Self::Stop => 1,
            Self::End(_) => 2,
            Self::Kill => 3,
        }
    }

    /// Takes the stronger order; whether that changed anything.
    pub(super) fn raise(&mut self, order: Self) -> bool {
        let stronger = order.rank() > self.rank();
        if stronger {
            *self = order;
        }
        stronger
    }
}

/// The life of one scripted container.
pub(super) struct Body {
    behavior: Behavior,
    orders: watch::Receiver<Order>,
}

impl Body {
    pub(super) fn new(behavior: Behavior, orders: watch::Receiver<Order>) -> Self {
        Self { behavior, orders }
    }

    /// Runs to the end.
    pub(super) async fn live(mut self) -> Exit {
        let own = self.behavior.exit_after;
        let by_itself = async {
            match own {
                Some((after, exit)) => {
                    tokio::time::sleep(after).await;
                    exit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = by_itself => exit,
            exit = self.obey() => exit,
        }
    }

    async fn obey(&mut self) -> Exit {
        loop {
            let order = *self.orders.borrow_and_update();
            match order {
                Order::Stop if !self.behavior.ignores_stop => {
                    return self.behavior.stop_exit.unwrap_or(Exit::code(0));
                }
                Order::Run | Order::Stop => {}
                Order::End(exit) => return exit,
                Order::Kill => {
                    tokio::time::sleep(self.behavior.dies_slowly).await;
                    return Exit::signal(9).forced();
                }
            }
            if self.orders.changed().await.is_err() {
                // The runtime is gone, or forgot the container, which it does to ended ones alone.
                return Exit::signal(9).forced();
            }
        }
    }
}
