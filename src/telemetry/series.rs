//! Metrics of what comes and goes, as backends do. Each has a recorder of its own, since the
//! process's never forgets: a series ends with what it counts, and no sooner.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

/// The metrics of one thing; shown for as long as somebody has this.
pub struct Series {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// The series that there are, by their label and its value.
#[derive(Default)]
pub(super) struct AllSeries(Mutex<HashMap<(&'static str, String), Weak<Series>>>);

impl Series {
    pub(super) fn new(recorder: PrometheusRecorder) -> Series {
        Series { handle: recorder.handle(), recorder }
    }

    /// Metrics that `work` looks up are of this.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, work)
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series").finish_non_exhaustive()
    }
}

impl AllSeries {
    /// Those with this label, made with `new` unless they are there: two of one name are the same.
    pub fn of(
        &self,
        label: &'static str,
        value: &str,
        new: impl FnOnce() -> Series,
    ) -> Arc<Series> {
        let mut all = self.lock();
        all.retain(|_, series| series.strong_count() > 0);
        let known = all.entry((label, value.to_owned())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let series = Arc::new(new());
            *known = Arc::downgrade(&series);
            series
        })
    }

    /// What there is now.
    pub fn handles(&self) -> Vec<PrometheusHandle> {
        self.lock().values().filter_map(Weak::upgrade).map(|it| it.handle.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(&'static str, String), Weak<Series>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Several texts of Prometheus's format as one, in which all of a metric stands together.
pub(super) fn merged(texts: &[String]) -> String {
    let mut families: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for text in texts {
        let mut family = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")) {
                Some(about) => {
                    family = about.split(' ').next().unwrap_or_default();
                    let (comments, _) = families.entry(family).or_default();
                    if !comments.contains(&line) {
                        comments.push(line);
                    }
                }
                None => families.entry(family).or_default().1.push(line),
            }
        }
    }
    let blocks = families.into_values().map(|(comments, samples)| {
        comments.iter().chain(&samples).flat_map(|line| [line, "\n"]).collect::<String>() + "\n"
    });
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use metrics::counter;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn named(name: &str) -> Series {
        Series::new(PrometheusBuilder::new().add_global_label("backend", name).build_recorder())
    }

    #[test]
    fn series_are_one_for_a_name_and_end_with_the_last_who_has_them() {
        let all = AllSeries::default();
        let (one, same) = (
            all.of("backend", "one", || named("one")),
            all.of("backend", "one", || unreachable!("it is there")),
        );
        one.within(|| counter!("requests_total").increment(1));
        same.within(|| counter!("requests_total").increment(1));
        drop(one);
        let texts: Vec<String> = all.handles().iter().map(PrometheusHandle::render).collect();
        assert!(texts[0].contains("requests_total{backend=\"one\"} 2\n"), "{texts:?}");
        drop(same);
        assert!(all.handles().is_empty());
        let again = all.of("backend", "one", || named("one"));
        again.within(|| counter!("requests_total").increment(1));
        let texts: Vec<String> = all.handles().iter().map(PrometheusHandle::render).collect();
        assert!(texts[0].contains("requests_total{backend=\"one\"} 1\n"), "{texts:?}");
    }

    #[test]
    fn all_of_a_metric_stands_together_under_one_head() {
        let texts = [
            "# HELP b How many\n# TYPE b counter\nb{x=\"1\"} 1\n\n# TYPE a gauge\na 2\n\n",
            "# HELP b How many\n# TYPE b counter\nb{x=\"2\"} 3\n\n",
            "# TYPE c histogram\nc_bucket{le=\"1\"} 4\nc_sum 5\nc_count 4\n\n",
        ];
        assert_eq!(
            merged(&texts.map(str::to_owned)),
            "# TYPE a gauge\na 2\n\n\
             # HELP b How many\n# TYPE b counter\nb{x=\"1\"} 1\nb{x=\"2\"} 3\n\n\
             # TYPE c histogram\nc_bucket{le=\"1\"} 4\nc_sum 5\nc_count 4\n\n"
        );
        assert_eq!(merged(&[]), "");
    }
}
