//! How a line of the log is written where there are no colours: every request has one, and
//! what writes such lines for everybody thinks of colours, of widths and of precisions for
//! each field.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Room for most lines, in bytes.
const USUAL_LINE: usize = 256;

/// Room for any number, as JSON has it.
const LONGEST_NUMBER: usize = 40;

/// `2026-11-21T20:23:37.255439Z  INFO request: merch_store::access: answered status=200 id=a1`:
/// time, level, spans, target, message and fields, the spans' last. Quotes are only around
/// texts that could be taken for more than one.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(USUAL_LINE);
        add_time(&mut line, SystemTime::now());
        line += match *event.metadata().level() {
            Level::ERROR => " ERROR ",
            Level::WARN => "  WARN ",
            Level::INFO => "  INFO ",
            Level::DEBUG => " DEBUG ",
            Level::TRACE => " TRACE ",
        };
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            line += span.name();
            line += ": ";
        }
        line += event.metadata().target();
        line.push(':');
        event.record(&mut Fields(&mut line));
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                line += &fields.fields;
            }
        }
        line.push('\n');
        writer.write_str(&line)
    }
}

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = String::new();
        fields.record(&mut Fields(&mut line));
        writer.write_str(&line)
    }
}

/// Adds fields to a line, each with a space before it.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn begin(&mut self, field: &Field) -> &mut String {
        self.0.push(' ');
        if field.name() != "message" {
            *self.0 += field.name();
            self.0.push('=');
        }
        self.0
    }

    fn add_number(&mut self, field: &Field, value: impl Serialize) {
        let mut text = [0; LONGEST_NUMBER];
        let mut rest = &mut text[..];
        serde_json::to_writer(&mut rest, &value).expect("there is room for any number");
        let length = LONGEST_NUMBER - rest.len();
        *self.begin(field) += ascii(&text[..length]);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
        let line = self.begin(field);
        match !value.is_empty() && value.bytes().all(is_plain) {
            true => *line += value,
            false => add_debug(line, &value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add_number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add_number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add_number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        *self.begin(field) += if value { "true" } else { "false" };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        add_debug(self.begin(field), value);
    }
}

fn add_debug(line: &mut String, value: &dyn fmt::Debug) {
    // A String takes everything, and a value that cannot be shown is left out.
    let _ = write!(line, "{value:?}");
}

fn add_time(line: &mut String, now: SystemTime) {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    text[..19].copy_from_slice(&text_of(now.as_secs()));
    let mut rest = now.subsec_micros();
    for digit in text[20..26].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    *line += ascii(&text);
}

thread_local! {
    /// The second that was written last, which is most often the next one too, and its text.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

fn text_of(second: u64) -> [u8; 19] {
    let (last, text) = SECOND.get();
    if last == second {
        return text;
    }
    let second_of = i64::try_from(second).ok();
    let time = second_of.and_then(|it| OffsetDateTime::from_unix_timestamp(it).ok());
    let written = time.and_then(|time| time.format(&Rfc3339).ok());
    // A clock that is thousands of years off is not worth an error.
    let written = written.and_then(|it| it.as_bytes().first_chunk().copied());
    let text = written.unwrap_or(*b"9999-12-31T23:59:59");
    SECOND.set((second, text));
    text
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("digits and signs are ASCII")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of what happens in `work`.
    fn written(work: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Plain)
            .fmt_fields(Plain);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), work);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_has_its_message_its_fields_and_those_of_the_request_that_it_is_about() {
        let line = written(|| {
            tracing::info_span!("request", id = "a1", path = "/api/info").in_scope(|| {
                tracing::info!(
                    target: "shop",
                    status = 200_u16,
                    balance = -7,
                    milliseconds = 2.686,
                    cut = false,
                    error = %"no such thing",
                    names = ?["a"],
                    "answered {}", 1,
                );
            });
        });
        let (time, rest) = line.split_at("2026-11-21T20:23:37.255439Z".len());
        assert!(OffsetDateTime::parse(time, &Rfc3339).is_ok(), "{time}");
        assert_eq!(
            rest,
            "  INFO request: shop: answered 1 status=200 balance=-7 milliseconds=2.686 cut=false \
             error=no such thing names=[\"a\"] id=a1 path=/api/info\n"
        );
    }

    #[test]
    fn a_text_is_in_quotes_if_it_could_be_taken_for_something_else() {
        let shown = |text: &str| {
            let line = written(|| tracing::info!(target: "shop", text, "said"));
            let shown = line.trim_end().split_once("said text=");
            shown.map(|(_, shown)| shown.to_owned()).unwrap_or(line)
        };
        for (text, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a\nb", "\"a\\nb\""),
            ("a\"b", "\"a\\\"b\""),
            ("ä", "\"ä\""),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn a_second_is_written_as_it_is_in_the_calendar() {
        for (second, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_795_292_617, "2026-11-21T20:23:37"),
            (u64::MAX, "9999-12-31T23:59:59"),
        ] {
            // The second time it is remembered.
            for _ in 0..2 {
                assert_eq!(ascii(&text_of(second)), expected);
            }
        }
    }
}
