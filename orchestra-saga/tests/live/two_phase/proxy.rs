//! A wire to the server that is cut at a statement.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// When the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Before the server hears of it.
    Request,
    /// After the server did it, before anybody hears of that.
    Answer,
}

pub(super) struct Proxy {
    pub(super) config: Config,
    trap: Arc<Mutex<Option<(&'static str, Cut)>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn to(config: &Config) -> Self {
        let Some(Host::Tcp(host)) = config.get_hosts().first() else {
            panic!("the server has no address");
        };
        let server = format!("{host}:{}", config.get_ports()[0]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let trap = Arc::new(Mutex::new(None));
        let mut tasks = JoinSet::new();
        let set = Arc::clone(&trap);
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(&server).await.unwrap();
                wires.spawn(wire(near, far, Arc::clone(&set)));
            }
        });
        let mut near = Config::new();
        near.host("127.0.0.1").port(address.port());
        near.user(config.get_user().unwrap());
        near.dbname(config.get_dbname().unwrap());
        near.options(config.get_options().unwrap());
        Self {
            config: near,
            trap,
            _tasks: tasks,
        }
    }

    /// Cuts the first connection that carries this text, once.
    pub(super) fn cut(&self, text: &'static str, cut: Cut) {
        *self.trap.lock() = Some((text, cut));
    }

    pub(super) fn was_sprung(&self) -> bool {
        self.trap.lock().is_none()
    }
}

async fn wire(near: TcpStream, far: TcpStream, trap: Arc<Mutex<Option<(&'static str, Cut)>>>) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let mut last = false;
    loop {
        tokio::select! {
            read = from_near.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let sent = &asked[..length];
                let sprung = trap.lock().take_if(|(text, _)| {
                    sent.windows(text.len()).any(|part| part == text.as_bytes())
                });
                match sprung {
                    Some((_, Cut::Request)) => return,
                    Some((_, Cut::Answer)) => last = true,
                    None => {}
                }
                if to_far.write_all(sent).await.is_err() { return }
            }
            read = from_far.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if last {
                    // It is done; what the server does next is to see that nobody is there.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return;
                }
                if to_near.write_all(&answered[..length]).await.is_err() { return }
            }
        }
    }
}
