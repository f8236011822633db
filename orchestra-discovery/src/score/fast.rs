//! Logarithm and power of two without branches or calls, so that loops over them become vector code.
//!
//! Both are within two units in the last place or so of the series below, and continuous where their pieces
//! meet: what is monotone stays so, but for rounding.

use std::f32::consts::{FRAC_1_SQRT_2, LN_2};

/// `log2` of a positive normal number; anything else gives some finite number.
///
/// `x = m * 2^e` with `m` in `[sqrt(1/2), sqrt(2))`, and `ln m = 2 artanh(s)` with `s = (m - 1) / (m + 1)`, of
/// whose series four terms are left with an error of 4e-8.
#[inline]
pub(super) fn log2(x: f32) -> f32 {
    const TWICE: f32 = 2.0 / LN_2;
    let bits = x.to_bits();
    let exponent = bits.wrapping_sub(FRAC_1_SQRT_2.to_bits()).cast_signed() >> 23;
    let mantissa = f32::from_bits(bits.wrapping_sub(exponent.cast_unsigned() << 23));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = TWICE / 5.0 + square * (TWICE / 7.0);
    let series = TWICE + square * (TWICE / 3.0 + square * series);
    exponent as f32 + s * series
}

/// `2^x` for `x` in `-126..=127`.
///
/// `x = n + f` with the rest `f` in `[-1/2, 1/2]`, and seven terms of the series of `e^(f ln 2)`, whose relative error is
/// 2e-7.
#[inline]
pub(super) fn exp2(x: f32) -> f32 {
    const SERIES: [f32; 7] = {
        let (first, second) = (LN_2, LN_2 * LN_2);
        let third = first * second;
        [
            1.0,
            first,
            second / 2.0,
            third / 6.0,
            second * second / 24.0,
            second * third / 120.0,
            third * third / 720.0,
        ]
    };
    // Added to this, a number has its integer part, rounded, in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x + ROUND;
    let rest = x - (shifted - ROUND);
    let backwards = SERIES.into_iter().rev();
    let series = backwards.fold(0.0, |sum, term| sum * rest + term);
    f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits())) * series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bit patterns of positive normal numbers that are a multiple of this apart.
    fn normal() -> impl Iterator<Item = f32> {
        (0x0080_0000..0x7f80_0000_u32)
            .step_by(997)
            .map(f32::from_bits)
    }

    #[test]
    fn logarithm_is_that_of_std() {
        for x in normal() {
            let (ours, exact) = (f64::from(log2(x)), f64::from(x).log2());
            let slack = 3e-7_f64.max(exact.abs() * 1.2e-7);
            assert!((ours - exact).abs() <= slack, "{x}: {ours} {exact}");
        }
        assert!(log2(1.0).abs() < f32::MIN_POSITIVE);
    }

    #[test]
    fn power_is_that_of_std() {
        for n in -1_260_000..=1_270_000_i32 {
            let x = n as f32 / 1e4;
            let (ours, exact) = (f64::from(exp2(x)), f64::from(x).exp2());
            assert!((ours / exact - 1.0).abs() < 4e-7, "{x}: {ours} {exact}");
        }
        assert!((exp2(0.0) - 1.0).abs() < f32::MIN_POSITIVE);
    }

    #[test]
    fn both_rise_all_the_way_but_for_rounding() {
        let mut last = f32::NEG_INFINITY;
        for x in normal() {
            let log = log2(x);
            assert!(log >= last - 1e-7 * last.abs().max(4.0), "{x}");
            last = log;
        }
        let mut last = 0.0;
        for n in -126_000..=127_000_i32 {
            let power = exp2(n as f32 / 1e3);
            assert!(power > last, "{n}");
            last = power;
        }
    }

    #[test]
    fn what_is_no_positive_normal_number_gives_a_finite_logarithm() {
        for x in [0.0, -0.0, -1.0, f32::MIN_POSITIVE / 2.0, f32::MAX] {
            assert!(log2(x).is_finite(), "{x}");
        }
    }
}
