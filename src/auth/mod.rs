//! Who is asking: passwords and tokens. Nothing here knows of databases or HTTP.

pub mod password;
pub mod proof;
pub mod token;
