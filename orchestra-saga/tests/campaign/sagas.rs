//! The sagas of the campaign: transfers, and payments that need an approval.
//!
//! What goes wrong in a saga is its [`Whim`], by its number, so that every kind of event is written all the
//! time.

use std::time::Duration;

use orchestra_core::Backoff;
use orchestra_saga::{Call, Definition, Failure, Operation, Retry};
use serde::{Deserialize, Serialize};

use crate::client::{Client, Upset};
use crate::ledger::{CUSTOMERS, FEES, FEES_DUE, HELD, TRANSIT};

pub(crate) const TRANSFER: &str = "transfer";
pub(crate) const APPROVAL: &str = "approval";
/// The signal of an approval.
pub(crate) const APPROVED: &str = "approved";
pub(crate) const FEE: i64 = 1;

/// What a saga is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: u64,
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) amount: i64,
    pub(crate) whim: Whim,
}

/// What goes wrong in a saga, or is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Whim {
    None,
    PivotRefused,
    FeeRefused,
    DebitBusy,
    DebitLost,
    /// Nobody ever hears what became of the fee, so the ledger is asked.
    FeeLost,
    /// And it has no time at first.
    FeeLostAndBusy,
    /// The order of the fee arrives when the saga has gone back.
    FeeLate,
    PivotLost,
    UndoingBusy,
    UndoingLost,
    /// Parked, and then done.
    SettlingBusy,
    Beats,
    Cancelled,
    Paused,
    Approved,
    Unapproved,
    /// Goes back to the save-point once.
    Restarted,
    /// Taken back after it was completed.
    Revoked,
}

const WHIMS: [Whim; 20] = [
    Whim::None,
    Whim::Approved,
    Whim::FeeLostAndBusy,
    Whim::Restarted,
    Whim::DebitBusy,
    Whim::Cancelled,
    Whim::SettlingBusy,
    Whim::UndoingBusy,
    Whim::Revoked,
    Whim::FeeLost,
    Whim::Paused,
    Whim::Beats,
    Whim::PivotRefused,
    Whim::Approved,
    Whim::DebitLost,
    Whim::UndoingLost,
    Whim::FeeRefused,
    Whim::Unapproved,
    Whim::PivotLost,
    Whim::FeeLate,
];

impl Order {
    /// The saga of a number.
    pub(crate) fn of(number: u64) -> Self {
        let count = u64::from(CUSTOMERS);
        let whims = WHIMS.len() as u64;
        let small = |number: u64| u8::try_from(number).expect("few customers");
        Self {
            number,
            from: small(number % count),
            to: small((number + 1 + number / count % (count - 1)) % count),
            amount: i64::try_from(2 + number % 97).expect("small"),
            whim: WHIMS[usize::try_from(number % whims).expect("small")],
        }
    }

    pub(crate) fn definition(&self) -> &'static str {
        match self.whim {
            Whim::Approved | Whim::Unapproved | Whim::Restarted | Whim::Revoked => APPROVAL,
            _ => TRANSFER,
        }
    }

    /// Whether it cannot but go back.
    pub(crate) fn must_fail(&self) -> bool {
        let bound = [
            Whim::PivotRefused,
            Whim::FeeRefused,
            Whim::FeeLost,
            Whim::FeeLostAndBusy,
            Whim::FeeLate,
            Whim::UndoingBusy,
            Whim::UndoingLost,
            Whim::Unapproved,
        ];
        bound.contains(&self.whim)
    }

    pub(crate) fn payer(&self) -> String {
        format!("customer {}", self.from)
    }

    pub(crate) fn payee(&self) -> String {
        format!("customer {}", self.to)
    }
}

/// Which steps of a completed saga move money, and how much.
pub(crate) fn movements(order: &Order) -> Vec<(&'static str, i64)> {
    match order.definition() {
        APPROVAL => vec![("hold", order.amount), ("book", order.amount)],
        _ => vec![
            ("debit", order.amount),
            ("fee", FEE),
            ("commit", order.amount),
            ("settle", FEE),
        ],
    }
}

fn often(retries: u32, millis: u64) -> Retry {
    let cap = Duration::from_millis(millis * 4);
    Retry::new(
        retries,
        Backoff::exponential(Duration::from_millis(millis), 1.5).cap(cap),
    )
}

const PATIENCE: u32 = 40;

/// Two steps beside each other, a join, the point of no return, a wait, and a step that is never given up.
pub(crate) fn transfer(client: &Client) -> Definition {
    let mut d = Definition::builder(TRANSFER, "1");
    let order = d.input::<Order>();
    let (act, undo) = (client.clone(), client.clone());
    let debit = d
        .step("debit", order, move |call: Call, order: Order| {
            debit(act.clone(), call, order)
        })
        .retry(often(PATIENCE, 4))
        .compensation_retry(often(PATIENCE, 4))
        .compensate(move |call: Call, order: Order, _: Option<i64>| {
            undo_debit(undo.clone(), call, order)
        });
    let (act, undo, ask) = (client.clone(), client.clone(), client.clone());
    let fee = d
        .step("fee", order, move |call: Call, order: Order| {
            let client = act.clone();
            async move {
                let upset = match order.whim {
                    Whim::FeeRefused => Upset::Refused,
                    Whim::FeeLost | Whim::FeeLostAndBusy => Upset::Lost,
                    Whim::FeeLate => Upset::Late,
                    _ => Upset::Nothing,
                };
                let fee = (order.payer(), FEES_DUE, FEE);
                client.book(&call, (&fee.0, fee.1, fee.2), upset).await
            }
        })
        .retry(often(2, 10))
        .probe(move |call: Call, order: Order| probe_fee(ask.clone(), call, order))
        .compensation_retry(often(PATIENCE, 4))
        .compensate(move |call: Call, order: Order, _: Option<i64>| {
            let client = undo.clone();
            async move {
                let fee = (&*order.payer(), FEES_DUE, FEE);
                client.book(&call, fee, Upset::Nothing).await.map(drop)
            }
        });
    let whole = d
        .step("check", (debit, fee), |_: Call, (debit, fee)| async move {
            Ok::<i64, Failure>(debit + fee)
        })
        .read_only();
    let pay = client.clone();
    let commit = d
        .step("commit", (order, whole), move |call: Call, (order, _)| {
            commit(pay.clone(), call, order)
        })
        .retry(often(PATIENCE, 4))
        .pivot();
    // Longer than a worker looks ahead: the saga sleeps meanwhile.
    let waited = d.sleep("wait", commit, Duration::from_millis(30));
    let settle_with = client.clone();
    d.step("settle", order, move |call: Call, order: Order| {
        let client = settle_with.clone();
        async move {
            let busy = order.whim == Whim::SettlingBusy && call.attempt < 4;
            let upset = if busy { Upset::Busy } else { Upset::Nothing };
            client.book(&call, (FEES_DUE, FEES, FEE), upset).await
        }
    })
    .after(waited)
    .retry(often(1, 4))
    .retriable();
    let slowly = Backoff::fixed(Duration::from_millis(60));
    d.parking(slowly).build().expect("valid")
}

async fn debit(client: Client, call: Call, order: Order) -> Result<i64, Failure> {
    let first = call.attempt == 1;
    let upset = match order.whim {
        Whim::DebitBusy if first => Upset::Busy,
        Whim::DebitLost if first => Upset::Lost,
        _ => Upset::Nothing,
    };
    if order.whim == Whim::Beats {
        // Whether it is heard or not changes nothing.
        let _heard = call.heartbeat(&"begun").await;
    }
    let movement = (&*order.payer(), TRANSIT, order.amount);
    client.book(&call, movement, upset).await
}

async fn undo_debit(client: Client, call: Call, order: Order) -> Result<(), Failure> {
    let first = call.attempt == 1;
    let upset = match order.whim {
        Whim::UndoingBusy if first => Upset::Busy,
        Whim::UndoingLost if first => Upset::Lost,
        _ => Upset::Nothing,
    };
    let movement = (&*order.payer(), TRANSIT, order.amount);
    client.book(&call, movement, upset).await.map(drop)
}

async fn probe_fee(client: Client, call: Call, order: Order) -> Result<Option<i64>, Failure> {
    let busy = order.whim == Whim::FeeLostAndBusy && call.attempt == 1;
    let upset = if busy { Upset::Busy } else { Upset::Nothing };
    assert_eq!(call.op, Operation::Probe);
    let movement = (&*order.payer(), FEES_DUE, FEE);
    match client.book(&call, movement, upset).await {
        Ok(amount) => Ok(Some(amount)),
        Err(Failure::Rejected(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn commit(client: Client, call: Call, order: Order) -> Result<i64, Failure> {
    let upset = match order.whim {
        Whim::PivotRefused | Whim::UndoingBusy | Whim::UndoingLost => Upset::Refused,
        Whim::PivotLost if call.attempt == 1 => Upset::Lost,
        _ => Upset::Nothing,
    };
    let movement = (TRANSIT, &*order.payee(), order.amount);
    client.book(&call, movement, upset).await
}

/// A payment that is held until somebody approves of it, or for too long; it can be taken back whole.
pub(crate) fn approval(client: &Client) -> Definition {
    let mut d = Definition::builder(APPROVAL, "1");
    let order = d.input::<Order>();
    let move_held = |client: &Client, paid: bool| {
        let client = client.clone();
        move |call: Call, order: Order| {
            let client = client.clone();
            async move {
                let refused = paid
                    && order.whim == Whim::Restarted
                    && call.iteration == 0
                    && is_action(&call);
                let upset = if refused {
                    Upset::Refused
                } else {
                    Upset::Nothing
                };
                let (payer, payee) = (order.payer(), order.payee());
                let (from, to) = if paid {
                    (HELD, &*payee)
                } else {
                    (&*payer, HELD)
                };
                client.book(&call, (from, to, order.amount), upset).await
            }
        }
    };
    let (hold, release) = (move_held(client, false), move_held(client, false));
    let held = d
        .step("hold", order, hold)
        .retry(often(PATIENCE, 4))
        .save_point(1)
        .compensation_retry(often(PATIENCE, 4))
        .compensate(move |call: Call, order: Order, _: Option<i64>| {
            let released = release(call, order);
            async move { released.await.map(drop) }
        });
    let limit = Duration::from_millis(300);
    let approved = d.signal::<u64, _>("approve", held, APPROVED, limit);
    let (book, take_back) = (move_held(client, true), move_held(client, true));
    d.step("book", order, book)
        .after(approved)
        .retry(often(PATIENCE, 4))
        .compensation_retry(often(PATIENCE, 4))
        .compensate(move |call: Call, order: Order, _: Option<i64>| {
            let taken = take_back(call, order);
            async move { taken.await.map(drop) }
        });
    let slowly = Backoff::fixed(Duration::from_millis(60));
    d.parking(slowly).build().expect("valid")
}

fn is_action(call: &Call) -> bool {
    call.op == Operation::Action
}
