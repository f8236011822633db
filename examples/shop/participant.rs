//! The six services of the shop, each a process of its own.
//!
//! A service keeps one SQLite file, shared by its replicas. A saga's step arrives as
//! `POST /steps/{step}` with the saga's headers; the barrier and the service's own tables change in one
//! transaction, so a repeated, late or overtaken call has no second effect.

mod books;
mod inventory;
mod notification;
mod order;
mod payment;
mod process;
mod recommendation;
mod user;
mod writer;

pub use process::{Environment, run};

use orchestra::saga::barrier::sqlite::Abort;
use rusqlite::Connection;
use serde_json::Value;

/// What a service does with its tables; the process around it is the same for all.
pub trait Participant: Send + 'static {
    /// Tables and their first rows. Runs at every start, possibly in two replicas at once.
    fn open(&self, db: &Connection) -> rusqlite::Result<()>;

    /// The saga's action, inside the barrier's transaction.
    fn act(&self, db: &Connection, input: &Value) -> Result<Value, Abort>;

    /// Takes the action back, inside the barrier's transaction. Only called where the action happened.
    fn undo(&self, db: &Connection, input: &Value) -> Result<Value, Abort>;

    /// Answers `GET /{path}`; `None` is not found.
    fn read(&self, db: &Connection, path: &str) -> rusqlite::Result<Option<Value>>;
}

/// The services by name.
pub fn by_name(name: &str) -> Option<Box<dyn Participant>> {
    Some(match name {
        "user" => Box::new(user::User),
        "inventory" => Box::new(inventory::Inventory),
        "payment" => Box::new(payment::Payment),
        "order" => Box::new(order::Order),
        "notification" => Box::new(notification::Notification),
        "recommendation" => Box::new(recommendation::Recommendation),
        _ => return None,
    })
}
