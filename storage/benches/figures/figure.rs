//! Taking times, and the line that tells a figure.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

/// What a figure is held against.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// Told for orientation.
    None,
}

impl Bar {
    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtLeast(bar) if value < bar => "missed",
            Self::AtMost(bar) if value > bar => "missed",
            Self::AtLeast(_) | Self::AtMost(_) => "ok",
            Self::None => "noted",
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, ">={bar}"),
            Self::AtMost(bar) => write!(f, "<={bar}"),
            Self::None => f.write_str("none"),
        }
    }
}

/// Tells the median of `values`.
pub(crate) fn tell(name: &str, values: &[f64], bar: Bar, detail: &str) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
        return println!("SKIPPED figure-{name}: nothing was measured");
    };
    let value = sorted[sorted.len() / 2];
    println!(
        "FIGURE {name} value={} bar={bar} {} min={} max={} runs={} {detail}",
        short(value),
        bar.verdict(value),
        short(*min),
        short(*max),
        sorted.len()
    );
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value {
        v if v.abs() >= 100.0 => format!("{v:.0}"),
        v if v.abs() >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The time that `work` takes.
#[expect(clippy::disallowed_methods, reason = "a bench takes the time")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = std::time::Instant::now();
    let result = work();
    (start.elapsed(), result)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Few samples: a round of a figure is long, and pairs within a round are what is compared.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4))
        .without_plots()
}

/// Rounds of one thing beside another, alternating within each round.
#[derive(Default)]
pub(crate) struct Pairs {
    ours: Vec<f64>,
    other: Vec<f64>,
}

impl Pairs {
    /// Lets criterion run `round`, which returns the times of ours and of the other. Criterion is told ours.
    pub(crate) fn collect(
        &mut self,
        criterion: &mut Criterion,
        id: (&str, &str),
        bytes: u64,
        mut round: impl FnMut() -> (Duration, Duration),
    ) {
        let mut group = criterion.benchmark_group(id.0);
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(bytes));
        group.bench_function(BenchmarkId::from_parameter(id.1), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let (ours, other) = round();
                    self.ours.push(ours.as_secs_f64());
                    self.other.push(other.as_secs_f64());
                    sum += ours;
                }
                sum
            });
        });
        group.finish();
    }

    /// The other's time by ours, round by round: above 1 ours is faster.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.other).map(|(ours, other)| other / ours).collect()
    }

    /// Median times of ours and of the other in seconds.
    pub(crate) fn seconds(&self) -> (f64, f64) {
        (median(&self.ours), median(&self.other))
    }
}
