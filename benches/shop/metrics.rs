//! What replicas say of themselves at `/metrics`.

use std::ops::Sub;

use super::world::Replica;

/// The sum and the number of what a histogram has recorded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Histogram {
    sum: f64,
    count: f64,
}

impl Histogram {
    /// The first of `names` that there is, of all `replicas` together. A name may be one of an
    /// earlier release, or have labels in braces.
    pub async fn read(replicas: &[Replica], names: &[&str]) -> anyhow::Result<Histogram> {
        let mut all = Histogram::default();
        for replica in replicas {
            let url = format!("http://{}/metrics", replica.address);
            let text = reqwest::get(url).await?.error_for_status()?.text().await?;
            let value = |name: &str, part: &str| {
                let (name, labels) = name.split_at(name.find('{').unwrap_or(name.len()));
                let start = format!("{name}{part}{labels} ");
                text.lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok())
            };
            let of = |name: &&str| value(name, "_sum").zip(value(name, "_count"));
            // Nothing was recorded yet where there is none.
            let (sum, count) = names.iter().find_map(of).unwrap_or_default();
            all = Histogram { sum: all.sum + sum, count: all.count + count };
        }
        Ok(all)
    }

    /// Of what was recorded, one; not a number if nothing was.
    pub fn mean(self) -> f64 {
        self.sum / self.count
    }
}

impl Sub for Histogram {
    type Output = Histogram;

    fn sub(self, before: Histogram) -> Histogram {
        Histogram { sum: self.sum - before.sum, count: self.count - before.count }
    }
}
