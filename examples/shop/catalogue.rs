//! What the shop sells and to whom: the same at every start, so that an audit knows the totals.

/// Accounts `u-1` to `u-200`.
pub const USERS: u32 = 200;
/// Every tenth account is nearly empty: its payments are declined soon.
pub const RICH_CENTS: i64 = 100_000_000;
pub const POOR_CENTS: i64 = 3_000;
/// Pieces of each item at the first start.
pub const STOCK: i64 = 1_000_000;
/// The most pieces in one order.
pub const MAX_QUANTITY: u32 = 100;

pub const ITEMS: [(&str, i64); 8] = [
    ("anvil", 4_900),
    ("bellows", 2_350),
    ("chisel", 1_275),
    ("drill", 7_990),
    ("easel", 3_400),
    ("file", 890),
    ("gouge", 1_560),
    ("hammer", 2_100),
];

pub fn user(number: u32) -> String {
    format!("u-{number}")
}

pub fn opening_balance(number: u32) -> i64 {
    if number.is_multiple_of(10) {
        POOR_CENTS
    } else {
        RICH_CENTS
    }
}

pub fn total_money() -> i64 {
    (1..=USERS).map(opening_balance).sum()
}
