//! Which names there are, who may have a new one, and who keeps an old one.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

#[test]
fn a_username_is_taken_to_the_letter_or_refused() {
    let longest = "я".repeat(255);
    let too_long = "я".repeat(256);
    for (text, expected) in [
        ("alice", Ok("alice")),
        ("Alice", Ok("Alice")),
        ("анна мария", Ok("анна мария")),
        ("😀", Ok("😀")),
        (longest.as_str(), Ok(longest.as_str())),
        ("", Err(InvalidUsername::Empty)),
        (too_long.as_str(), Err(InvalidUsername::TooLong)),
        ("a\0b", Err(InvalidUsername::ControlCharacter)),
        ("a\nb", Err(InvalidUsername::ControlCharacter)),
        ("a\u{85}b", Err(InvalidUsername::ControlCharacter)),
        (" alice", Err(InvalidUsername::OuterSpace)),
        ("alice\u{a0}", Err(InvalidUsername::OuterSpace)),
        ("\u{3000}alice", Err(InvalidUsername::OuterSpace)),
    ] {
        let parsed = Username::parse(text);
        assert_eq!(parsed.as_ref().map(Username::as_str), expected.as_ref().copied());
    }
}

#[test]
fn a_name_that_could_be_somebodys_keeps_its_letters() {
    for text in [
        "alice",
        "Alice",
        "O'Brien",
        "anna-maria.smith_2@example.com",
        "анна мария",
        "Zoë",
        "Nguyễn Thị Minh Khai",
        "Łukasz Żółć",
        "straße",
        "ΣΊΣΥΦΟΣ",
        "İpek",
        "ıpek",
        "李小龍",
        "山田 太郎",
        "ヤマダ",
        "김민준",
        "สมชาย",
        "अनिल",
        "தமிழ்",
        "محمد علي",
        "مُحَمَّد",
        "דוד",
        "שָׁלוֹם",
        "محمد2",
        "l·l",
        "նարե",
        "ქეთევან",
    ] {
        assert_eq!(name(text).canonical().as_ref().map(Username::as_str), Ok(text), "{text}");
    }
}

#[test]
fn spellings_of_one_name_are_one_name() {
    for (typed, spelled) in [
        ("e\u{301}", "é"),
        ("Zoe\u{308}", "Zoë"),
        // Marks in another order.
        ("e\u{301}\u{323}", "e\u{323}\u{301}"),
        ("A\u{30a}", "Å"),
        // The sign of the unit.
        ("\u{212b}ngström", "Ångström"),
        ("\u{2126}", "Ω"),
        ("\u{1100}\u{1161}\u{11a8}", "각"),
        ("ａｌｉｃｅ", "alice"),
        ("ｱﾝﾅ", "アンナ"),
        ("ｶﾞ", "ガ"),
        ("山田\u{3000}太郎", "山田 太郎"),
        ("ｅ\u{301}", "é"),
        ("И\u{306}", "Й"),
    ] {
        let spelled = name(spelled).canonical().unwrap();
        assert_eq!(name(typed).canonical().as_ref(), Ok(&spelled), "{typed}");
        assert_eq!(spelled.canonical().as_ref(), Ok(&spelled), "{typed}");
    }
}

#[test]
fn names_that_differ_stay_apart() {
    for (one, other) in [
        ("alice", "Alice"),
        ("i", "ı"),
        ("I", "İ"),
        ("e", "é"),
        ("ß", "ss"),
        // Latin and Cyrillic.
        ("a", "а"),
        ("σ", "ς"),
        ("anna maria", "annamaria"),
    ] {
        assert_ne!(name(one).canonical().unwrap(), name(other).canonical().unwrap());
    }
}

#[test]
fn a_new_name_has_nothing_in_it_that_cannot_be_told_from_another() {
    use InvalidUsername::{DoubleSpace, LooseMark, MixedDirections};
    for (text, expected) in [
        ("anna  maria", Some(DoubleSpace)),
        ("anna\u{3000}\u{3000}maria", Some(DoubleSpace)),
        ("anna \u{3000}maria", Some(DoubleSpace)),
        ("\u{301}alice", Some(LooseMark('\u{301}'))),
        ("anna \u{301}", Some(LooseMark('\u{301}'))),
        ("ﾞア", Some(LooseMark('\u{3099}'))),
        ("aאב", Some(MixedDirections)),
        ("אa", Some(MixedDirections)),
        ("1א", Some(MixedDirections)),
        ("א1\u{661}", Some(MixedDirections)),
        ("א-", Some(MixedDirections)),
    ] {
        assert_eq!(name(text).canonical().err(), expected, "{text:?}");
    }
    let forbidden = [
        // Ways to turn the text around.
        '\u{202a}',
        '\u{202b}',
        '\u{202c}',
        '\u{202d}',
        '\u{202e}',
        '\u{2066}',
        '\u{2067}',
        '\u{2068}',
        '\u{2069}',
        '\u{200e}',
        '\u{200f}',
        '\u{61c}',
        // Nothing to see.
        '\u{200b}',
        '\u{200c}',
        '\u{200d}',
        '\u{2060}',
        '\u{2061}',
        '\u{feff}',
        '\u{ad}',
        '\u{34f}',
        '\u{115f}',
        '\u{1160}',
        '\u{3164}',
        '\u{ffa0}',
        '\u{180e}',
        '\u{fe0f}',
        '\u{e0100}',
        '\u{e0041}',
        '\u{e007f}',
        '\u{17b4}',
        '\u{2800}',
        // Spaces that are not that one, inside.
        '\u{a0}',
        '\u{2003}',
        '\u{202f}',
        '\u{205f}',
        '\u{1680}',
        '\u{2028}',
        // One letter that is several, or another in disguise.
        'ﬁ',
        '\u{1f1}',
        '²',
        '①',
        'Ⅷ',
        'ª',
        '㎏',
        '\u{1d400}',
        '\u{fdfa}',
        // Signs.
        '😀',
        '☠',
        '€',
        '\u{2019}',
        '\u{2013}',
        '\u{2044}',
        '\u{301c}',
        // Nothing yet, or never.
        '\u{378}',
        '\u{fffe}',
        '\u{ffff}',
        '\u{10ffff}',
        '\u{fdd0}',
        '\u{e000}',
        '\u{f8ff}',
        '\u{fffd}',
        '\u{fff9}',
    ];
    for character in forbidden {
        let error = name(&format!("al{character}ice")).canonical().unwrap_err();
        let InvalidUsername::Forbidden(named) = error else {
            panic!("{character:?}: {error}");
        };
        // What was mapped is named by what it became.
        assert!(named == character || ('\u{ff00}'..'\u{fff0}').contains(&character), "{error}");
        assert!(error.to_string().contains(&format!("U+{:04X}", u32::from(named))), "{error}");
    }
}

#[test]
fn the_length_of_a_name_is_counted_in_letters() {
    let (composed, decomposed) = ("é".repeat(255), "e\u{301}".repeat(255));
    assert_eq!(Username::typed(&decomposed), Ok(name(&composed)));
    assert_eq!(Username::parse(&decomposed), Err(InvalidUsername::TooLong));
    assert_eq!(Username::typed(&"e\u{301}".repeat(256)), Err(InvalidUsername::TooLong));
    // As long as it may be when it is typed, and longer than that as it is spelled.
    let grows = name(&"\u{958}".repeat(255));
    assert_eq!(grows.canonical(), Err(InvalidUsername::TooLong));
    let widest = "\u{20000}".repeat(255);
    assert_eq!(widest.len(), 1020);
    assert_eq!(Username::typed(&widest).and_then(|name| name.canonical()), Ok(name(&widest)));
    // Short enough as it was typed: it is looked for as it was typed first.
    assert_eq!(Username::typed("e\u{301}"), Ok(name("e\u{301}")));
}

proptest! {
    #[test]
    fn a_canonical_name_is_its_own_and_keeps_to_the_rules(text in "\\PC{1,12}") {
        if let Ok(spelled) = Username::parse(&text).and_then(|name| name.canonical()) {
            prop_assert_eq!(spelled.canonical(), Ok(spelled.clone()));
            let decomposed: String = spelled.as_str().nfd().collect();
            prop_assert_eq!(name(&decomposed).canonical(), Ok(spelled.clone()));
            // What the index of other spellings is made of.
            let folded: String = text.nfkc().collect();
            prop_assert_eq!(folded.as_str(), spelled.as_str());
        }
    }
}
