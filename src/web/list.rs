//! Headers that are lists: items with commas between them, on any number of lines (RFC 9110,
//! 5.6.1).

use ::http::header::{HeaderMap, HeaderName, HeaderValue};

/// The items of all lines of header `name`, in which no item has a comma of its own.
pub fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().flat_map(items_of)
}

/// The items of one line. Empty ones are none.
pub fn items_of(line: &HeaderValue) -> impl Iterator<Item = &str> {
    let items = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    items.filter(|item| !item.is_empty()).map(text)
}

/// An item as text. One that is none is something that nobody knows: what stands beside it counts
/// as if it were a word.
pub fn text(item: &[u8]) -> &str {
    std::str::from_utf8(item).unwrap_or("\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_is_no_text_leaves_its_neighbours_what_they_are() {
        let name = HeaderName::from_static("x");
        let mut headers = HeaderMap::new();
        for line in [&b" a ,,\tb c\t,"[..], b"", b"d, \xe9,e"] {
            headers.append(&name, HeaderValue::from_bytes(line).unwrap());
        }
        let items: Vec<&str> = items(&headers, &name).collect();
        assert_eq!(items, ["a", "b c", "d", "\u{fffd}", "e"]);
    }
}
