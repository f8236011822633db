//! Arithmetic modulo the size of a table, which is a prime.

/// A prime modulus of fewer than 32 bits, with what a division by it can be spared with (Barrett 1986).
#[derive(Debug, Clone, Copy)]
pub(super) struct Modulus {
    prime: u32,
    reciprocal: u64,
}

impl Modulus {
    pub(super) const fn new(prime: u32) -> Self {
        Self {
            prime,
            reciprocal: u64::MAX / prime as u64,
        }
    }

    pub(super) fn is_prime(number: u32) -> bool {
        let root = number.isqrt();
        number > 1 && (2..=root).all(|divisor| !number.is_multiple_of(divisor))
    }

    pub(super) const fn get(self) -> u32 {
        self.prime
    }

    /// `a * b`, of numbers below the modulus.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "below the modulus after the correction"
    )]
    pub(super) const fn product(self, a: u32, b: u32) -> u32 {
        let product = a as u64 * b as u64;
        let quotient = (product as u128 * self.reciprocal as u128) >> 64;
        let rest = product - quotient as u64 * self.prime as u64;
        // The quotient is too small by one at most.
        let prime = self.prime as u64;
        (if rest >= prime { rest - prime } else { rest }) as u32
    }

    /// `a + b`, of numbers below the modulus.
    pub(super) const fn sum(self, a: u32, b: u32) -> u32 {
        self.difference(a, self.difference(0, b))
    }

    /// `a - b`, of numbers below the modulus.
    pub(super) const fn difference(self, a: u32, b: u32) -> u32 {
        if a >= b { a - b } else { self.prime - b + a }
    }

    /// The number that gives one when it is multiplied with `a`, by Euclid; zero for zero.
    #[expect(clippy::cast_possible_truncation, reason = "a rest of the modulus")]
    pub(super) fn inverse(self, a: u32) -> u32 {
        let prime = i64::from(self.prime);
        let (mut left, mut right) = (prime, i64::from(a));
        let (mut of_left, mut of_right) = (0_i64, 1_i64);
        while right != 0 {
            let quotient = left / right;
            (left, right) = (right, left - quotient * right);
            (of_left, of_right) = (of_right, of_left - quotient * of_right);
        }
        of_left.rem_euclid(prime).unsigned_abs() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_times_number_is_one() {
        for prime in [2, 3, 65_537, 5_000_011] {
            let modulus = Modulus::new(prime);
            for a in (1..prime).step_by(prime as usize / 997 + 1) {
                assert_eq!(
                    modulus.product(a, modulus.inverse(a)),
                    1,
                    "{a} modulo {prime}"
                );
            }
        }
    }

    #[test]
    fn product_is_the_rest_of_the_division() {
        for prime in [2_u32, 7, 65_537, 5_000_011, 4_294_967_291] {
            let modulus = Modulus::new(prime);
            for k in 0..1000_u64 {
                let a = u32::try_from(k * 2_654_435_761 % u64::from(prime)).unwrap();
                let b = prime - 1 - u32::try_from(k * 40_503 % u64::from(prime)).unwrap();
                let rest = u64::from(a) * u64::from(b) % u64::from(prime);
                assert_eq!(
                    u64::from(modulus.product(a, b)),
                    rest,
                    "{a} * {b} modulo {prime}"
                );
            }
        }
    }
}
