//! Latencies, counted in buckets of bounded relative error.
//!
//! Below 256 each value has its bucket; above, each power of two is cut into 128 equal buckets, so a value is
//! known to 1/128 (0.8 %). Fixed memory, a few instructions a record.

/// Buckets per power of two, as a power of two.
const PRECISION_BITS: u32 = 7;

/// Buckets in all: every `u64` has one.
const BUCKETS: usize = (64 - PRECISION_BITS as usize + 1) << PRECISION_BITS;

/// Counted values.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// An empty one.
    pub(crate) fn new() -> Histogram {
        Histogram { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }

    /// Counts one value.
    pub(crate) fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// How many values were counted.
    pub(crate) fn len(&self) -> u64 {
        self.total
    }

    /// The largest value; 0 if there is none.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The value that `per_mille` of a thousand values do not exceed (500 is the median), rounded up to the end
    /// of its bucket; 0 if there is none.
    pub(crate) fn quantile(&self, per_mille: u64) -> u64 {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_end(index).min(self.max);
            }
        }
        self.max
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    let exponent = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    let mantissa = value >> exponent;
    usize::try_from((u64::from(exponent) << PRECISION_BITS) + mantissa).unwrap_or(BUCKETS)
}

/// The largest value of a bucket.
fn bucket_end(index: usize) -> u64 {
    let index = index as u64;
    let exponent = (index >> PRECISION_BITS).saturating_sub(1);
    let mantissa = index - (exponent << PRECISION_BITS);
    // Wraps at the last bucket, whose end is u64::MAX.
    (mantissa + 1).wrapping_shl(u32::try_from(exponent).unwrap_or(0)).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[u64], per_mille: u64, exact: u64) {
        let mut histogram = Histogram::new();
        for value in values {
            histogram.record(*value);
        }
        let found = histogram.quantile(per_mille);
        assert!(found >= exact && found - exact <= exact / 128, "{per_mille} of {values:?}: {found}");
    }

    #[test]
    fn quantiles_are_known_to_a_hundred_and_twenty_eighth() {
        check(&[], 500, 0);
        check(&[7], 500, 7);
        check(&[7], 1, 7);
        check(&[1, 2, 3, 4], 500, 2);
        check(&[1, 2, 3, 4], 501, 3);
        check(&[1, 2, 3, 4], 1000, 4);
        check(&[100_000, 200_000, 300_000], 500, 200_000);
        check(&[100_000, 200_000, 300_000], 990, 300_000);
        check(&[u64::MAX, 1], 990, u64::MAX);
        let many: Vec<u64> = (0..10_000).map(|n| n * 1_000).collect();
        check(&many, 500, 4_999_000);
        check(&many, 990, 9_899_000);
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        let around = |value: u64| [value.saturating_sub(1), value, value.saturating_add(1)];
        for value in (0..64).flat_map(|shift| around(1 << shift)).chain(0..4096) {
            let index = bucket(value);
            assert!(value <= bucket_end(index), "{value}");
            assert!(index == 0 || value > bucket_end(index - 1), "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
