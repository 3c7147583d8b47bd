//! The file that `--config` names: a regular one, or anything else that text can be read from.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::InvalidConfig;

/// Far more than 256 backends and everything else take, in bytes.
const LARGEST: u64 = 1 << 20;

/// What a file says. It is read once, because what is read from a pipe is gone.
#[derive(Clone)]
pub struct SettingsFile {
    path: PathBuf,
    settings: Map<String, Value>,
}

impl SettingsFile {
    /// Reads the file at `path`, exactly that, be it a pipe; the error says what is wrong with
    /// it and where.
    pub fn read(path: &Path) -> Result<SettingsFile, InvalidConfig> {
        let wrong = |why: String| InvalidConfig(format!("{}: {why}", path.display()));
        let mut bytes = Vec::new();
        let reading = open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        reading.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if bytes.len() as u64 > LARGEST {
            return Err(wrong(format!("is longer than {LARGEST} bytes; settings are not")));
        }
        let text = str::from_utf8(&bytes).map_err(|error| {
            let good = &bytes[..error.valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            wrong(format!("line {line}: this is not text in UTF-8"))
        })?;
        // Some editors begin a file with a mark of its byte order.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Not the parser's whole words: they repeat the line, in which a secret may be.
        let parsed = DeTable::parse(text).map_err(|error| {
            let (line, column) = place(text, error.span().map_or(0, |span| span.start));
            wrong(format!("line {line}, column {column}: {}", error.message()))
        })?;
        let settings = table(path, text, parsed.into_inner());
        Ok(SettingsFile { path: path.to_owned(), settings })
    }

    /// Fails where reading `path` once more would wait for ever, or find nothing.
    pub fn check_again(path: &Path) -> Result<(), InvalidConfig> {
        match fs::metadata(path) {
            Ok(file) if !file.is_file() => Err(InvalidConfig(format!(
                "{}: this is not a file but a pipe or a device, which can be read once only; \
                 start again to change settings",
                path.display()
            ))),
            // A file that is gone is found to be so by whoever reads it.
            _ => Ok(()),
        }
    }

    /// The same settings as variables of the environment, but those of `[gateway]`.
    pub fn variables(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        let sections = self.settings.iter().filter(|(name, _)| *name != "gateway");
        for (name, value) in sections {
            add_variables(&format!("MERCH__{}", name.to_uppercase()), value, &mut variables);
        }
        variables
    }
}

/// Never what it says: there are secrets in it.
impl fmt::Debug for SettingsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingsFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source for SettingsFile {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.settings.clone())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    Ok(file)
}

fn table(path: &Path, text: &str, table: DeTable<'_>) -> Map<String, Value> {
    let entries = table.into_iter();
    entries.map(|(key, inner)| (key.into_inner().into_owned(), value(path, text, inner))).collect()
}

/// A value that knows the line it stands on.
fn value(path: &Path, text: &str, value_there: Spanned<DeValue<'_>>) -> Value {
    let (line, _) = place(text, value_there.span().start);
    let kind = match value_there.into_inner() {
        DeValue::String(string) => ValueKind::String(string.into_owned()),
        // One that is too large for any integer is refused with its key, as it is written.
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => ValueKind::I64(number),
            Err(_) => ValueKind::String(integer.as_str().to_owned()),
        },
        DeValue::Float(float) => ValueKind::String(float.as_str().to_owned()),
        DeValue::Boolean(boolean) => ValueKind::Boolean(boolean),
        DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
        DeValue::Array(items) => {
            ValueKind::Array(items.into_iter().map(|item| value(path, text, item)).collect())
        }
        DeValue::Table(inner) => ValueKind::Table(table(path, text, inner)),
    };
    Value::new(Some(&format!("{}, line {line}", path.display())), kind)
}

/// The line and the column, counted from 1, of the byte at `offset`.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (1 + before.matches('\n').count(), 1 + before[line_start..].chars().count())
}

fn add_variables(name: &str, value: &Value, variables: &mut Vec<(String, String)>) {
    match &value.kind {
        ValueKind::Table(entries) => {
            for (key, value) in entries {
                add_variables(&format!("{name}__{}", key.to_uppercase()), value, variables);
            }
        }
        ValueKind::Array(items) => {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            variables.push((name.to_owned(), items.join(",")));
        }
        kind => variables.push((name.to_owned(), kind.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<SettingsFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop");
        fs::write(&path, bytes).unwrap();
        SettingsFile::read(&path).map_err(|error| {
            let said = error.to_string();
            said.strip_prefix(&format!("{}: ", path.display())).expect(&said).to_owned()
        })
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place() {
        for (bytes, said) in [
            (&b"[http]\naddress = 'x\n"[..], "line 2, column "),
            (b"\n\nhttp\n", "line 3, column "),
            (b"[http]\nbody_limit = 1\nbody_limit = 2\n", "line 3, column 1: duplicate key"),
            (b"[auth]\njwt_secret = \"hunter2", "line 2, column "),
            (b"[log]\nlevel = '\xff'\n", "line 2: this is not text in UTF-8"),
            (b"\xff\xfe[\0h\0", "line 1: this is not text in UTF-8"),
            (b"\x7fELF\x01\0\0\0", "line 1, column "),
            (&[b'#'; (1 << 20) + 1], "is longer than 1048576 bytes"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.starts_with(said), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        read(&[b'#'; 1 << 20]).unwrap();
    }

    #[test]
    fn a_file_becomes_variables_but_for_the_gateway() {
        let text = "\u{feff}data_dir = 'd'\n[http]\nbody_limit = 0x10_00\n[database]\nmigrate = false\n\
                    [gateway]\nbackends = ['http://a']\n";
        let mut variables = read(text.as_bytes()).unwrap().variables();
        variables.sort();
        let expected = [
            ("MERCH__DATABASE__MIGRATE", "false"),
            ("MERCH__DATA_DIR", "d"),
            ("MERCH__HTTP__BODY_LIMIT", "4096"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn settings_do_not_show_when_the_file_is_debugged() {
        let file = read(b"[auth]\njwt_secret = 'hunter2'\n").unwrap();
        assert!(!format!("{file:?}").contains("hunter2"));
    }
}
