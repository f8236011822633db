//! How surprising a number of errors is.

/// An upper bound of the logarithm of the probability that a host which is like the others fails at least
/// `errors` of `calls`, when the others failed `rest_errors` of `rest_calls`.
///
/// The others' error rate is not known, only estimated: with a uniform prior it is distributed as
/// `Beta(rest_errors + 1, rest_calls − rest_errors + 1)`, and the errors of one more host as the beta-binomial of
/// it. The ratio of two successive terms of its tail falls from term to term (both parameters are at least one),
/// so the tail is no more than its first term's geometric series: a bound in constant time, and a tight one
/// where it matters, far out.
pub(super) fn ln_tail(errors: f64, calls: f64, rest_errors: f64, rest_calls: f64) -> f64 {
    if errors < 1.0 {
        return 0.0;
    }
    let (x, n) = (errors, calls);
    let a = rest_errors + 1.0;
    let b = (rest_calls - rest_errors).max(0.0) + 1.0;
    let misses = (n - x).max(0.0);
    let ratio = misses * (a + x) / ((x + 1.0) * (b + misses - 1.0).max(1.0));
    if ratio >= 1.0 {
        return 0.0;
    }
    let choose = ln_gamma(n + 1.0) - ln_gamma(x + 1.0) - ln_gamma(misses + 1.0);
    let first = choose + ln_beta(a + x, b + misses) - ln_beta(a, b);
    (first - (1.0 - ratio).ln()).min(0.0)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The logarithm of the gamma function for arguments of at least one, by Stirling's series; good to ten digits.
fn ln_gamma(mut x: f64) -> f64 {
    let mut product = 1.0;
    while x < 8.0 {
        product *= x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - product.ln()
}

#[cfg(test)]
mod tests {
    use super::{ln_gamma, ln_tail};

    #[test]
    fn gamma_is_the_factorial() {
        let mut factorial = 1.0_f64;
        for n in 1..60_u32 {
            let found = ln_gamma(f64::from(n));
            assert!((found - factorial.ln()).abs() < 1e-9, "{n}: {found}");
            factorial *= f64::from(n);
        }
    }

    /// The tail by summing every term, each from the one before: `P(k + 1) / P(k)` in closed form.
    fn exact(errors: u32, calls: u32, rest_errors: u32, rest_calls: u32) -> f64 {
        let (n, a) = (f64::from(calls), f64::from(rest_errors) + 1.0);
        let b = f64::from(rest_calls - rest_errors) + 1.0;
        let mut term = (0..calls).fold(1.0, |it, i| {
            it * (b + f64::from(i)) / (a + b + f64::from(i))
        });
        let mut tail = 0.0;
        for k in 0..=calls {
            if k >= errors {
                tail += term;
            }
            let k = f64::from(k);
            term *= (n - k) * (a + k) / ((k + 1.0) * (b + n - k - 1.0));
        }
        tail
    }

    #[test]
    fn bound_is_never_below_the_tail_and_close_far_out() {
        for (calls, rest_errors, rest_calls) in
            [(20, 0, 80), (20, 3, 60), (100, 50, 1000), (50, 700, 1000)]
        {
            for errors in 0..=calls {
                let [x, n, a, b] = [errors, calls, rest_errors, rest_calls].map(f64::from);
                let bound = ln_tail(x, n, a, b);
                let tail = exact(errors, calls, rest_errors, rest_calls).ln();
                assert!(bound >= tail - 1e-9, "{errors}/{calls}: {bound} < {tail}");
                if tail < -9.0 {
                    assert!(bound - tail < 0.7, "{errors}/{calls}: {bound}, {tail}");
                }
            }
        }
    }

    #[test]
    fn sure_thing_is_no_surprise() {
        assert_eq!(ln_tail(0.0, 10.0, 0.0, 100.0).to_bits(), 0.0_f64.to_bits());
        assert_eq!(ln_tail(5.0, 10.0, 50.0, 100.0).to_bits(), 0.0_f64.to_bits());
    }
}
