//! What sections are: the words of a section are never one value. One that is, such as a URL that
//! was meant for a key in it, is refused before its text can stand in an error.

use config::{Value, ValueKind};

use super::InvalidConfig;

/// Refuses what hides a section of `defaults` in `settings`, by its name and place alone.
pub(super) fn check(settings: &Value, defaults: &Value) -> Result<(), InvalidConfig> {
    check_below("", settings, defaults)
}

fn check_below(path: &str, settings: &Value, defaults: &Value) -> Result<(), InvalidConfig> {
    let ValueKind::Table(expected) = &defaults.kind else { return Ok(()) };
    let ValueKind::Table(given) = &settings.kind else {
        return Err(hidden(path, settings, expected.keys()));
    };
    for (name, defaults) in expected {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let Some(settings) = given.get(name) {
            check_below(&path, settings, defaults)?;
        }
    }
    Ok(())
}

fn hidden<'a>(path: &str, value: &Value, names: impl Iterator<Item = &'a String>) -> InvalidConfig {
    let place = value.origin().map_or_else(String::new, |origin| format!(" ({origin})"));
    let variable = path.to_uppercase().replace('.', "__");
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    names.sort_unstable();
    let why = format!(
        "it is a section, not one value{place}; give a setting in it a value ({}), in the \
         environment as MERCH__{variable}__ and its name",
        names.join(", ")
    );
    InvalidConfig::new(path, why)
}
