//! A database's URL: every part of it is honoured, or refused by name.
//!
//! Values are never repeated in an error, because any of them may be a secret. Nothing but the
//! URL counts: libpq's environment is gone by now (`cli::environment`), and its password file is
//! not read.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

/// What a URL asks for.
pub(super) struct Parsed {
    pub connect: PgConnectOptions,
    /// Files that TLS needs, each under the name of its parameter.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// Stands where a URL names no host.
const NO_HOST: &str = "-";

/// The port of who names none.
const PORT: u16 = 5432;

/// Folders where systems have their PostgreSQL's socket.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/private/tmp", "/tmp"];

/// A URL that cannot be; `Display` never repeats a part of it that may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

/// What the parameters say, and what is not known until all of them were read.
#[derive(Default)]
struct Parameters {
    host: Option<String>,
    hostaddr: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    password_is_a_parameter: bool,
    database: Option<String>,
    application_name: Option<String>,
    ssl_mode: Option<PgSslMode>,
    ssl_root_cert: Option<PathBuf>,
    system_roots: bool,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
    options: Vec<(String, String)>,
}

/// Reads `url`.
pub(super) fn parse(url: &str) -> Result<Parsed, InvalidUrl> {
    let url = well_formed(url)?;
    let mut given = Parameters {
        host: url
            .host_str()
            .filter(|host| *host != NO_HOST)
            .map(|host| decode("host", without_brackets(host)).map(Cow::into_owned))
            .transpose()?,
        port: url.port().map(|number| port(Some(number))).transpose()?,
        user: Some(decode("user", url.username())?.into_owned()).filter(|user| !user.is_empty()),
        password: url
            .password()
            .map(|it| decode("password", it).map(Cow::into_owned))
            .transpose()?,
        database: Some(decode("database name", url.path().trim_start_matches('/'))?.into_owned())
            .filter(|name| !name.is_empty()),
        ..Parameters::default()
    };
    for parameter in url.query().unwrap_or_default().split('&').filter(|it| !it.is_empty()) {
        // Without a value it may be the rest of one.
        let (name, value) = parameter.split_once('=').ok_or_else(|| {
            InvalidUrl("a parameter has no = behind its name; & in a value must be %26".into())
        })?;
        let name = decode("name of a parameter", name)?;
        let value = decode(&shown(&name), value)?;
        given.take(&name, &value)?;
    }
    given.finish()
}

fn well_formed(text: &str) -> Result<Url, InvalidUrl> {
    let not_a_url = |why: &dyn std::fmt::Display| {
        InvalidUrl(format!(
            "not a URL like postgres://user:password@host:5432/name ({why}); in a password \
             characters like # / ? @ : % must be percent-encoded"
        ))
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(not_a_url(&"it has no ://"));
    };
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "postgres" | "postgresql") {
        return Err(not_a_url(&"it does not begin with postgres://"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // Else half of a password could pass for the name of a database, or of a parameter.
    let is_cut = |part: &str| part.contains('@');
    if is_cut(path.split('?').next().unwrap_or_default()) || (!is_cut(authority) && is_cut(path)) {
        return Err(not_a_url(&"an @ stands behind / ? or #"));
    }
    let (user, host) =
        authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    if host.contains(',') {
        return Err(several_hosts());
    }
    if host.starts_with('[') && host.contains('%') {
        return Err(InvalidUrl("an IPv6 address with a zone is not supported".into()));
    }
    // A host may be missing, or be a parameter; a URL has to have one beside a user or a port.
    let host = if host.is_empty() || host.starts_with(':') {
        format!("{NO_HOST}{host}")
    } else {
        host.to_owned()
    };
    let at = if user.is_empty() { "" } else { "@" };
    let url = Url::parse(&format!("{scheme}://{user}{at}{host}{path}"));
    let url = url.map_err(|error| not_a_url(&error))?;
    if url.fragment().is_some() {
        return Err(not_a_url(&"it has a #"));
    }
    Ok(url)
}

/// A host without the brackets of IPv6.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn port(number: Option<u16>) -> Result<u16, InvalidUrl> {
    let not_a_port = || InvalidUrl("port must be a number from 1 to 65535".into());
    number.filter(|number| *number > 0).ok_or_else(not_a_port)
}

/// Where a PostgreSQL on this machine is, as libpq has it: at the socket of `port`, if one is
/// there, else at the port.
fn own_host(port: u16) -> &'static str {
    let has_socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_FOLDERS.into_iter().find(has_socket).unwrap_or("localhost")
}

/// The name of the system's user `uid`, as whom nobody else is named.
fn own_user(uid: Uid) -> Result<String, InvalidUrl> {
    match User::from_uid(uid) {
        Ok(Some(user)) => Ok(user.name),
        _ => Err(InvalidUrl(format!(
            "it names no user, and the one that this runs as (uid {uid}) has no name; write \
             postgres://user@host:5432/name"
        ))),
    }
}

fn decode<'a>(what: &str, text: &'a str) -> Result<Cow<'a, str>, InvalidUrl> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| InvalidUrl(format!("the {what} is not UTF-8")))?;
    if decoded.contains('\0') {
        return Err(InvalidUrl(format!("the {what} has a NUL in it")));
    }
    Ok(decoded)
}

/// The name of a parameter, which may be anything and of any length.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(64).collect::<String>())
}

fn several_hosts() -> InvalidUrl {
    InvalidUrl(
        "several hosts in one URL are not supported; name one address that leads to the primary"
            .into(),
    )
}

impl Parameters {
    fn take(&mut self, name: &str, value: &str) -> Result<(), InvalidUrl> {
        let text = || Some(value.to_owned());
        let file = || Some(PathBuf::from(value));
        match name {
            "host" | "hostaddr" if value.contains(',') => return Err(several_hosts()),
            "host" => self.host = text().filter(|host| !host.is_empty()),
            "hostaddr" => {
                let address = value.parse::<std::net::IpAddr>();
                let address =
                    address.map_err(|_| InvalidUrl("hostaddr is not an IP address".into()))?;
                self.hostaddr = Some(address.to_string());
            }
            "port" => self.port = Some(port(value.parse().ok())?),
            "user" => self.user = text(),
            "password" => {
                self.password = text();
                self.password_is_a_parameter = true;
            }
            "dbname" => self.database = text(),
            "application_name" => self.application_name = text(),
            "sslmode" | "ssl-mode" => self.ssl_mode = Some(ssl_mode(value)?),
            // Those are trusted in any case.
            "sslrootcert" if value == "system" => self.system_roots = true,
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => self.ssl_root_cert = file(),
            "sslcert" | "ssl-cert" => self.ssl_cert = file(),
            "sslkey" | "ssl-key" => self.ssl_key = file(),
            "options" => self.options.extend(server_options(value)?),
            "target_session_attrs" if matches!(value, "any" | "read-write" | "primary") => {}
            "target_session_attrs" => {
                return Err(InvalidUrl(
                    "target_session_attrs must be read-write or primary: the shop writes".into(),
                ));
            }
            "connect_timeout" => {
                return Err(InvalidUrl(
                    "connect_timeout is not supported; set database.acquire_timeout_ms".into(),
                ));
            }
            other if other.starts_with("options[") && other.ends_with(']') => {
                let setting = &other["options[".len()..other.len() - 1];
                self.options.push((setting.to_owned(), value.to_owned()));
            }
            // It may be the other half of the password.
            _ if self.password_is_a_parameter => {
                return Err(InvalidUrl(
                    "an unknown parameter after the password; a & in a value is written %26".into(),
                ));
            }
            other => return Err(InvalidUrl(format!("unknown parameter {}", shown(other)))),
        }
        Ok(())
    }

    fn finish(self) -> Result<Parsed, InvalidUrl> {
        if self.host.is_some() && self.hostaddr.is_some() {
            return Err(InvalidUrl("hostaddr beside a host is not supported; give one".into()));
        }
        // `migrate down` finds other sessions of this program by how that begins.
        let name = match &self.application_name {
            Some(name) => format!("merch-store: {name}"),
            None => "merch-store".into(),
        };
        let port = self.port.unwrap_or(PORT);
        let host = match self.host.as_ref().or(self.hostaddr.as_ref()) {
            Some(host) => without_brackets(host),
            None => own_host(port),
        };
        let user = match &self.user {
            Some(user) => user.clone(),
            None => own_user(Uid::effective())?,
        };
        let mut connect = PgConnectOptions::new_without_pgpass()
            .application_name(&name)
            .ssl_mode(self.checked_ssl_mode()?)
            .host(host)
            .port(port)
            .username(&user)
            // PostgreSQL's own rule for who names none.
            .database(self.database.as_ref().unwrap_or(&user))
            // Poolers refuse it, and nothing here is a fraction.
            .extra_float_digits(None);
        if let Some(password) = self.password {
            connect = connect.password(&password);
        }
        if !self.options.is_empty() {
            connect = connect.options(self.options);
        }
        let mut files = Vec::new();
        if let Some(path) = self.ssl_root_cert {
            connect = connect.ssl_root_cert(&path);
            files.push(("sslrootcert", path));
        }
        if let (Some(certificate), Some(key)) = (self.ssl_cert, self.ssl_key) {
            connect = connect.ssl_client_cert(&certificate).ssl_client_key(&key);
            files.extend([("sslcert", certificate), ("sslkey", key)]);
        }
        Ok(Parsed { connect, files })
    }

    /// The mode of TLS, which must be one that checks what certificates are named for.
    fn checked_ssl_mode(&self) -> Result<PgSslMode, InvalidUrl> {
        if self.ssl_cert.is_some() != self.ssl_key.is_some() {
            return Err(InvalidUrl("sslcert and sslkey must be given together".into()));
        }
        let has_roots = self.system_roots || self.ssl_root_cert.is_some();
        match self.ssl_mode.unwrap_or(PgSslMode::Prefer) {
            mode @ (PgSslMode::VerifyCa | PgSslMode::VerifyFull) => Ok(mode),
            // As libpq has it: a certificate that is named is checked.
            PgSslMode::Require if self.ssl_root_cert.is_some() => Ok(PgSslMode::VerifyCa),
            mode if !has_roots => Ok(mode),
            _ => Err(InvalidUrl(
                "sslrootcert is only checked with sslmode=verify-full or verify-ca".into(),
            )),
        }
    }
}

fn ssl_mode(value: &str) -> Result<PgSslMode, InvalidUrl> {
    Ok(match value {
        "disable" => PgSslMode::Disable,
        "prefer" => PgSslMode::Prefer,
        "require" => PgSslMode::Require,
        "verify-ca" => PgSslMode::VerifyCa,
        "verify-full" => PgSslMode::VerifyFull,
        _ => {
            return Err(InvalidUrl(
                "sslmode must be one of disable, prefer, require, verify-ca and verify-full".into(),
            ));
        }
    })
}

/// The settings in `options`, which is a command line of `-c name=value` and `--name=value`.
fn server_options(value: &str) -> Result<Vec<(String, String)>, InvalidUrl> {
    let malformed = || InvalidUrl("options may only hold -c name=value, once or more".into());
    let mut words = words(value).into_iter();
    let mut options = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().ok_or_else(malformed)?,
            Some(setting) => setting.to_owned(),
            None => return Err(malformed()),
        };
        let (name, value) = setting.split_once('=').ok_or_else(malformed)?;
        options.push((name.to_owned(), value.to_owned()));
    }
    Ok(options)
}

/// `text` in words; a backslash takes the meaning from what follows it.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            character if character.is_ascii_whitespace() => words.extend(word.take()),
            character => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_port_user_database(url: &str) -> (String, u16, String, String) {
        let connect = parse(url).unwrap().connect;
        let database = connect.get_database().unwrap().to_owned();
        let user = connect.get_username().to_owned();
        (connect.get_host().to_owned(), connect.get_port(), user, database)
    }

    #[test]
    fn every_way_to_say_where_the_database_is_is_understood() {
        for (url, host, port, user, database) in [
            ("postgres://u:p@db.example.com:6543/shop", "db.example.com", 6543, "u", "shop"),
            ("postgresql://u:p@db/shop", "db", 5432, "u", "shop"),
            ("POSTGRES://u@db/shop", "db", 5432, "u", "shop"),
            ("postgres://u:p@[::1]:5433/shop", "::1", 5433, "u", "shop"),
            ("postgres://u@[2001:db8::17]/shop", "2001:db8::17", 5432, "u", "shop"),
            ("postgres://u@127.0.0.1/shop", "127.0.0.1", 5432, "u", "shop"),
            ("postgres://u%40x:p%2Fq@db/s%20h%D1%8F", "db", 5432, "u@x", "s hя"),
            ("postgres://u@%2Frun%2Fpostgresql/shop", "/run/postgresql", 5432, "u", "shop"),
            ("postgres://u@/shop?host=/run/pg&port=6000", "/run/pg", 6000, "u", "shop"),
            ("postgres://u@ignored/shop?host=[::1]", "::1", 5432, "u", "shop"),
            ("postgres:///?host=db&user=u&dbname=shop&password=p", "db", 5432, "u", "shop"),
            ("postgres://u@/shop?hostaddr=::1", "::1", 5432, "u", "shop"),
            ("postgres://u@:6000/shop?host=db", "db", 6000, "u", "shop"),
            ("postgres://?user=u&host=db&dbname=shop", "db", 5432, "u", "shop"),
            ("postgres://u@/shop?host=%252Fsocket", "%2Fsocket", 5432, "u", "shop"),
            ("postgres://db/shop?user=a+b", "db", 5432, "a+b", "shop"),
            ("postgres://db/shop?user=a%2Bb%20c&&", "db", 5432, "a+b c", "shop"),
            ("postgres://u@db/shop?user=u@corp&dbname=a=b", "db", 5432, "u@corp", "a=b"),
            ("postgres://u%40corp@db/a%40b", "db", 5432, "u@corp", "a@b"),
            ("postgres://u@db", "db", 5432, "u", "u"),
            ("postgres://u@db/", "db", 5432, "u", "u"),
        ] {
            let expected = (host.to_owned(), port, user.to_owned(), database.to_owned());
            assert_eq!(host_port_user_database(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name_and_without_its_value() {
        for (url, named) in [
            ("postgres://u:hunter2@db/shop?sslmode=requires", "sslmode must be one of disable, "),
            ("postgres://u@db/shop?sslmode=hunter2", "sslmode must be one of disable, prefer"),
            ("postgres://u@db/shop?sslmode=allow", "sslmode must be one of"),
            ("postgres://u@db/shop?sslmode=Require", "sslmode must be one of"),
            ("postgres://u@db/shop?sslpassword=hunter2", "unknown parameter \"sslpassword\""),
            ("postgres://u@db/shop?gssencmode=hunter2", "unknown parameter \"gssencmode\""),
            ("postgres://u@db/shop?channel_binding=require", "\"channel_binding\""),
            ("postgres://u@db/shop?statement-cache-capacity=0", "statement-cache-capacity"),
            ("postgres://u@db/shop?connect_timeout=3", "database.acquire_timeout_ms"),
            ("postgres://u@db/shop?target_session_attrs=standby", "target_session_attrs"),
            ("postgres://u@db/shop?sslrootcert=hunter2", "sslmode=verify-full"),
            ("postgres://u@db/shop?sslmode=prefer&sslrootcert=hunter2", "sslmode=verify-full"),
            ("postgres://u@db/shop?sslmode=require&sslrootcert=system", "sslmode=verify-full"),
            ("postgres://u@db/shop?sslmode=require&sslkey=hunter2", "sslcert and sslkey"),
            ("postgres://u@db/shop?options=-d%205", "options"),
            ("postgres://u@db/shop?options=-c", "options"),
            ("postgres://u@db/shop?port=hunter2", "port must be"),
            ("postgres://u@db/shop?port=0", "port must be"),
            ("postgres://u@db:0/shop", "port must be"),
            ("postgres://merch:4711?hunter2@db/shop", "percent-encoded"),
            ("postgres://merch:4711/hunter2@db/shop", "percent-encoded"),
            ("postgres://merch:4711#hunter2@db/shop", "percent-encoded"),
            ("postgres://u@x:4711/hunter2@db/shop", "percent-encoded"),
            ("postgres:///shop?password=hunter2@db", "percent-encoded"),
            ("postgres://u@db/shop?password=hun&ter2", "no = behind its name"),
            ("postgres://u@db/shop?password=hun&ter2=", "a & in a value is written %26"),
            ("postgres://u@db/shop?user=%FF", "the \"user\" is not UTF-8"),
            ("postgres://u@db/shop?password=hunter2%00", "the \"password\" has a NUL"),
            ("postgres://u@db/shop?%00=hunter2", "the name of a parameter has a NUL"),
            ("postgres://u@db/shop?hostaddr=hunter2", "hostaddr"),
            ("postgres://u@db/shop?hostaddr=::1", "hostaddr beside a host"),
            ("postgres://u:hunter2@a,b/shop", "several hosts"),
            ("postgres://u:hunter2@a:1,b:2/shop", "several hosts"),
            ("postgres://u@/shop?host=a,b", "several hosts"),
            ("postgres://u@[fe80::1%25eth0]/shop", "zone"),
            ("postgres://u:hun#ter2@db/shop", "percent-encoded"),
            ("postgres://u:hunter2/@db/shop", "percent-encoded"),
            ("postgres://u@db:99999/shop", "not a URL"),
            ("postgres://u:%FF@db/shop", "password is not UTF-8"),
            ("postgres://u@db/%00", "database name has a NUL"),
            ("postgres:u:hunter2@db", "not a URL"),
            ("mysql://root:hunter2@localhost/shop", "postgres://"),
            ("hunter2", "not a URL"),
            ("", "not a URL"),
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("accepted: {url}")).to_string();
            assert!(error.contains(named), "{url}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{url}: {error}");
        }
    }

    #[test]
    fn without_a_host_it_is_the_socket_of_the_port_or_the_port_here() {
        let (host, port, ..) = host_port_user_database("postgres://u@/shop?port=6000");
        assert_eq!((host.as_str(), port), (own_host(6000), 6000));
        assert_eq!(own_host(1), "localhost");
    }

    #[test]
    fn a_user_without_a_name_has_to_be_named() {
        let said = own_user(Uid::from_raw(3_999_999_999)).unwrap_err().to_string();
        assert!(said.contains("uid 3999999999") && said.contains("postgres://user@"), "{said}");
        assert_eq!(own_user(Uid::from_raw(0)).unwrap(), "root");
    }

    #[test]
    fn settings_for_the_server_reach_it_in_whichever_way_they_are_spelt() {
        for (value, expected) in [
            ("-c a.b=c", vec![("a.b", "c")]),
            ("-ca=b --c=d", vec![("a", "b"), ("c", "d")]),
            ("-c search_path=a\\ b,c", vec![("search_path", "a b,c")]),
            ("", vec![]),
        ] {
            let options = server_options(value).unwrap();
            let options: Vec<_> = options.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(options, expected, "{value}");
        }
    }

    #[test]
    fn who_names_a_certificate_has_it_checked() {
        for (query, mode) in [
            ("sslmode=require&sslrootcert=ca.pem", PgSslMode::VerifyCa),
            ("sslmode=verify-full&sslrootcert=ca.pem", PgSslMode::VerifyFull),
            ("sslmode=verify-full&sslrootcert=system", PgSslMode::VerifyFull),
            ("sslmode=require", PgSslMode::Require),
            ("sslmode=disable", PgSslMode::Disable),
            ("", PgSslMode::Prefer),
        ] {
            let connect = parse(&format!("postgres://u@db/shop?{query}")).unwrap().connect;
            let name = |mode: PgSslMode| format!("{mode:?}");
            assert_eq!(name(connect.get_ssl_mode()), name(mode), "{query}");
        }
    }
}
