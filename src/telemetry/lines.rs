//! Lines of the log on their way to a file: a thread of their own writes them, so that no
//! request waits for a disk, and the end of the process waits until all are written.
//!
//! Ours, because what there is turns files over by the clock and leaves lines behind at the end
//! if the disk takes longer than a second.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use metrics::counter;

use super::rolling::RollingFile;

/// Lines that may wait for the disk, a few megabytes of them; more are lost, and counted.
const WAITING: usize = 16_384;

/// How long after a line the next ones may wait for each other.
const GATHERING: Duration = Duration::from_millis(10);

/// How often to look whether the file is still the one at its path, without a line to write.
const FOLLOWING: Duration = Duration::from_secs(1);

/// How long after a complaint the next ones are gathered.
const COMPLAINING: Duration = Duration::from_secs(10);

enum Message {
    Line(Vec<u8>),
    /// The file may be another one: look now.
    Follow,
    End,
}

/// Where lines are left; cheap to clone.
#[derive(Clone, Debug)]
pub struct Lines(SyncSender<Message>);

/// The thread that writes. Dropped, it waits until everything that was left is written.
#[derive(Debug)]
pub struct Writing {
    lines: Lines,
    thread: Option<JoinHandle<()>>,
}

/// Starts to write into `file`.
pub fn write_to(file: RollingFile) -> io::Result<(Lines, Writing)> {
    let (sender, messages) = sync_channel(WAITING);
    let thread = std::thread::Builder::new().name("log".into());
    let thread = thread.spawn(move || write(file, &messages))?;
    let lines = Lines(sender);
    Ok((lines.clone(), Writing { lines, thread: Some(thread) }))
}

fn write(mut file: RollingFile, messages: &Receiver<Message>) {
    let mut complaint = Complaint::default();
    loop {
        let first = match messages.recv_timeout(FOLLOWING) {
            Err(RecvTimeoutError::Disconnected) => return,
            received => received.ok(),
        };
        let now = SystemTime::now();
        let mut failed = file.follow().err();
        let (mut missing, mut ended) = (0, false);
        let is_idle = first.is_none();
        for message in first.into_iter().chain(messages.try_iter()) {
            match message {
                Message::Line(line) => {
                    if let Err(error) = file.write_line(&line, now) {
                        missing += 1;
                        failed = Some(error);
                    }
                }
                Message::Follow => failed = file.follow().err().or(failed),
                Message::End => {
                    ended = true;
                    break;
                }
            }
        }
        // What cannot be flushed is not lost yet: it stays in the buffer, for the next time.
        if let Some(error) = file.flush().err().or(failed) {
            lost(missing);
            complaint.say(missing, &error);
        }
        if ended {
            return;
        }
        // Lines gather meanwhile: waking this thread for each of them, and writing each by
        // itself, would cost more than all the rest of a request that is passed on.
        if !is_idle {
            std::thread::sleep(GATHERING);
        }
    }
}

/// What is said on standard error: there is nobody to be told in the log itself.
#[derive(Default)]
struct Complaint {
    said: Option<Instant>,
    missing: u64,
}

impl Complaint {
    fn say(&mut self, missing: u64, error: &io::Error) {
        self.missing += missing;
        if self.said.is_none_or(|said| said.elapsed() >= COMPLAINING) {
            self.said = Some(Instant::now());
            let missing = std::mem::take(&mut self.missing);
            let said = format!("{missing} lines of the log are lost, others have to wait: {error}");
            super::complain(&said);
        }
    }
}

fn lost(lines: u64) {
    counter!("merch_log_lost_lines_total").increment(lines);
}

impl Lines {
    /// Has the file looked for at its path at once, as it is every second.
    pub fn follow(&self) {
        // Where lines wait, or after the end, there is nothing to hasten.
        let _ = self.0.try_send(Message::Follow);
    }
}

/// One write is one line, as the subscriber has it.
impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.try_send(Message::Line(line.to_vec())) {
            // After the end nobody reads any more.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => lost(1),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Waits for room, if need be; the thread is gone only if it panicked.
        let _ = self.lines.0.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn every_line_that_a_full_disk_refuses_is_counted() {
        let full = Path::new("/dev/full");
        let file = RollingFile::open(full, u64::MAX, SystemTime::now()).unwrap();
        let (sender, messages) = sync_channel(WAITING);
        // The short ones still have room in the buffer.
        for bytes in [100, 100_000, 100, 100_000, 100_000] {
            sender.send(Message::Line(vec![b'x'; bytes])).unwrap();
        }
        sender.send(Message::End).unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || write(file, &messages));
        let shown = recorder.handle().render();
        assert!(shown.contains("merch_log_lost_lines_total 3\n"), "{shown}");
    }

    #[test]
    fn everything_that_was_left_is_written_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = RollingFile::open(&path, u64::MAX, SystemTime::now()).unwrap();
        let (mut lines, writing) = write_to(file).unwrap();
        let expected: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        for line in expected.split_inclusive('\n') {
            lines.write_all(line.as_bytes()).unwrap();
        }
        drop(writing);
        assert!(std::fs::read_to_string(&path).unwrap() == expected);
        // Whoever is late does not hurt.
        lines.write_all(b"too late").unwrap();
    }
}
