//! Counters in Prometheus' text format. Spec: P-7-2.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::jobs::Done;

/// What is counted since the server started.
#[derive(Default)]
pub struct Metrics {
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Requests that were answered, by the first digit of the status, from 1 on.
    pub requests: [AtomicU64; 5],
    /// Bytes of files that arrived.
    pub received: AtomicU64,
    /// Bytes of files that were sent.
    pub sent: AtomicU64,
    /// Files that were kept.
    pub kept: AtomicU64,
    /// Files that were refused for what they are.
    pub refused: AtomicU64,
    /// By namespace and verb: jobs that were done, jobs that failed, and when the last one was done, in seconds since 1970.
    jobs: Mutex<BTreeMap<(String, String), [u64; 3]>>,
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        if let Some(count) =
            usize::from(status / 100).checked_sub(1).and_then(|class| self.requests.get(class))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a job that has ended.
    pub fn job_done(&self, done: &Done) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let verb = done.run.first().cloned().unwrap_or_default();
        let [successes, failures, last] = jobs.entry((done.namespace.clone(), verb)).or_default();
        if done.code == Some(0) {
            *successes += 1;
            *last = u64::try_from(done.time.as_second()).unwrap_or_default();
        } else {
            *failures += 1;
        }
    }

    /// All of them as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let _ = writeln!(text, "# HELP diptych_{name} {help}\n# TYPE diptych_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "diptych_{name}{labels} {value}");
            }
        };
        let one = |value: &AtomicU64| vec![(String::new(), value.load(Ordering::Relaxed))];
        put("connections", "gauge", "Connections that are open.", &one(&self.connections));
        let by_class = (1..).zip(&self.requests);
        let requests: Vec<(String, u64)> = by_class
            .map(|(class, count)| (format!("{{status=\"{class}xx\"}}"), count.load(Ordering::Relaxed)))
            .collect();
        put("requests_total", "counter", "Requests that were answered.", &requests);
        put("received_bytes_total", "counter", "Bytes of files that arrived.", &one(&self.received));
        put("sent_bytes_total", "counter", "Bytes of files that were sent.", &one(&self.sent));
        put("files_kept_total", "counter", "Files that were kept.", &one(&self.kept));
        put(
            "files_refused_total",
            "counter",
            "Files that were refused for what they are.",
            &one(&self.refused),
        );
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_jobs = |place: usize, name: &str, kind: &str, help: &str| {
            let values = jobs.iter().map(|((namespace, verb), values)| {
                let value = values.get(place).copied().unwrap_or_default();
                (format!("{{namespace=\"{namespace}\",verb=\"{verb}\"}}"), value)
            });
            put(name, kind, help, &values.collect::<Vec<_>>());
        };
        of_jobs(0, "jobs_done_total", "counter", "Jobs that were done.");
        of_jobs(1, "jobs_failed_total", "counter", "Jobs that failed.");
        of_jobs(2, "job_last_done_timestamp_seconds", "gauge", "When the last job that was done began.");
        text
    }
}
