#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bytes::Bytes;
use proptest::prelude::*;

use super::{ReadError, base64, fuzz_body, read, scan, to_json};

body! {
    Inner { flag: i64, name: String, }
}

body! {
    Outer {
        uid: String,
        kind: u8,
        count: u64,
        expire: u32,
        signed: i64,
        header: Inner,
        list: Vec<String>,
        inners: Vec<Inner>,
        payload: Bytes,
        maybe: Option<Vec<String>>,
    }
}

fn outer(text: &str) -> Outer {
    read(text.as_bytes()).unwrap()
}

fn fault(text: &str) -> String {
    read::<Outer>(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_first_value_counts_and_what_follows_does_not() {
    assert_eq!(outer(r#"{"uid":"a"} trailing"#).uid, "a");
    assert_eq!(outer(" \t\r\n{\"uid\":\"a\"}{").uid, "a");
    assert_eq!(outer("null"), Outer::default());
    assert_eq!(outer("{}"), Outer::default());
}

#[test]
fn names_match_in_any_case_and_the_last_one_counts() {
    assert_eq!(outer(r#"{"UID":"a","uId":"b"}"#).uid, "b");
    assert_eq!(outer(r#"{"\u0075id":"a"}"#).uid, "a");
    assert_eq!(outer("{\"li\u{17f}t\":[\"a\"],\"\u{212a}ind\":3}").list, ["a"]);
    assert_eq!(outer("{\"\u{212a}ind\":3}").kind, 3);
    assert_eq!(outer(r#"{"uid ":"a","ui":"b","zzz":{"a":[1,{"uid":5}]}}"#).uid, "");
    let both = outer(r#"{"header":{"flag":1},"header":{"name":"x"}}"#).header;
    assert_eq!((both.flag, both.name.as_str()), (1, "x"));
}

#[test]
fn null_leaves_what_is_there_but_empties_lists() {
    let read =
        outer(r#"{"uid":"a","uid":null,"kind":null,"list":["a"],"list":null,"header":null}"#);
    assert_eq!((read.uid.as_str(), read.kind, read.list.len()), ("a", 0, 0));
    assert_eq!(outer(r#"{"list":["a",null]}"#).list, ["a", ""]);
    assert_eq!(outer(r#"{"maybe":[]}"#).maybe, Some(Vec::new()));
    assert_eq!(outer(r#"{"maybe":["a"],"maybe":null}"#).maybe, None);
    assert_eq!(outer(r#"{"payload":"YQ==","payload":null}"#).payload, "");
}

#[test]
fn integers_have_the_range_of_their_field() {
    assert_eq!(outer(r#"{"kind":255}"#).kind, 255);
    assert_eq!(outer(r#"{"count":18446744073709551615}"#).count, u64::MAX);
    assert_eq!(outer(r#"{"signed":-9223372036854775808}"#).signed, i64::MIN);
    assert_eq!(outer(r#"{"signed":-0}"#).signed, 0);
    for bad in [
        r#"{"kind":256}"#,
        r#"{"kind":-1}"#,
        r#"{"kind":-0}"#,
        r#"{"kind":2.0}"#,
        r#"{"kind":2e0}"#,
        r#"{"kind":"2"}"#,
        r#"{"kind":true}"#,
        r#"{"kind":[]}"#,
        r#"{"count":18446744073709551616}"#,
        r#"{"expire":4294967296}"#,
        r#"{"signed":9223372036854775808}"#,
        r#"{"signed":99999999999999999999}"#,
        r#"{"uid":5}"#,
        r#"{"list":"a"}"#,
        r#"{"list":[1]}"#,
        r#"{"list":{}}"#,
        r#"{"header":[]}"#,
        r#"{"header":{"flag":true}}"#,
        r#"{"inners":["x"]}"#,
        r#"{"payload":7}"#,
        r#"{"payload":{"a":1}}"#,
        r#"{"payload":[256]}"#,
        r#"{"payload":["a"]}"#,
    ] {
        let text = fault(bad);
        assert!(text.starts_with("json: cannot unmarshal "), "{bad}: {text}");
    }
    assert_eq!(
        fault(r#"{"header":{"flag":1.5}}"#),
        "json: cannot unmarshal number 1.5 into field header.flag of type int"
    );
    assert_eq!(fault("[]"), "json: cannot unmarshal array into value of type Outer");
    assert_eq!(
        fault(r#"{"kind":256,"uid":5,"payload":"*"}"#),
        "json: cannot unmarshal number 256 into field kind of type uint8",
        "the first fault is told"
    );
}

#[test]
fn syntax_errors_have_gos_texts() {
    for (text, error) in [
        ("", "EOF"),
        (" \n", "EOF"),
        ("{", "unexpected EOF"),
        ("{\"", "unexpected EOF"),
        ("{\"uid\"", "unexpected EOF"),
        ("{\"uid\":", "unexpected EOF"),
        ("{\"uid\":\"a\"", "unexpected EOF"),
        ("[1", "unexpected EOF"),
        ("tru", "unexpected EOF"),
        ("-", "unexpected EOF"),
        ("1.", "unexpected EOF"),
        ("1e", "unexpected EOF"),
        ("{bad}", "invalid character 'b' looking for beginning of object key string"),
        ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("'", r"invalid character '\'' looking for beginning of value"),
        ("\0", r"invalid character '\x00' looking for beginning of value"),
        ("\u{feff}{}", "invalid character 'ï' looking for beginning of value"),
        ("\"\n\"", r"invalid character '\n' in string literal"),
        (r#""\x""#, "invalid character 'x' in string escape code"),
        (r#""\u12g4""#, r"invalid character 'g' in \u hexadecimal character escape"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
    ] {
        assert_eq!(fault(text), error, "{text:?}");
    }
    // Go stops at the end of the first value.
    assert_eq!(read::<i64>(b"01"), Ok(0));
    assert_eq!(read::<i64>(b"12x"), Ok(12));
    assert_eq!(read::<Option<Vec<String>>>(b"nullx"), Ok(None));
}

#[test]
fn strings_are_decoded_as_go_does() {
    let text = |json: &str| read::<String>(json.as_bytes()).unwrap();
    assert_eq!(text(r#""\"\\\/\b\f\n\r\t""#), "\"\\/\u{8}\u{c}\n\r\t");
    assert_eq!(text(r#""\u7fa4\ud83d\ude00""#), "群😀");
    assert_eq!(text(r#""\ud83dx\ude00\ud83d\u0041""#), "\u{fffd}x\u{fffd}\u{fffd}A");
    assert_eq!(read::<String>(b"\"a\xffb\""), Ok("a\u{fffd}b".to_owned()));
    assert_eq!(read::<String>(b"\"\\n\xff\""), Ok("\n\u{fffd}".to_owned()));
}

#[test]
fn depth_is_bounded_and_no_stack_is_used() {
    let deep = |depth: usize| {
        format!("{{\"zzz\":{}{},\"uid\":\"a\"}}", "[".repeat(depth), "]".repeat(depth))
    };
    assert_eq!(outer(&deep(9_999)).uid, "a");
    assert_eq!(fault(&deep(10_000)), "invalid character '[' exceeded max depth");
    assert_eq!(fault(&"[".repeat(1_000_000)), "invalid character '[' exceeded max depth");
    assert_eq!(fault(&"{\"a\":".repeat(1_000_000)), "invalid character '{' exceeded max depth");
}

#[test]
fn base64_faults_are_told_by_their_place() {
    for (text, outcome) in [
        ("", Ok("")),
        ("e30=", Ok("{}")),
        ("e30", Err(0)),
        ("e3*=", Err(2)),
        ("***", Err(0)),
        ("bTE=", Ok("m1")),
        ("bT\nE=\r\n", Ok("m1")),
        ("bTE=x", Err(4)),
        ("bTE==", Err(4)),
        ("bQ==", Ok("m")),
        ("bQ=\n=", Ok("m")),
        ("bR==", Ok("m")),
        ("bQ=", Err(3)),
        ("bQ=x", Err(2)),
        ("b===", Err(1)),
        ("=", Err(0)),
        ("bTEyb", Err(4)),
        ("bTEyMQ", Err(4)),
        ("bTEy-_8=", Err(4)),
    ] {
        let expected = outcome.map(|text| text.as_bytes().to_vec()).map_err(ReadError::Base64);
        assert_eq!(base64::decode(text.as_bytes()), expected, "{text:?}");
    }
    assert_eq!(fault(r#"{"payload":"e3*="}"#), "illegal base64 data at input byte 2");
    assert_eq!(outer(r#"{"payload":"bT\nE="}"#).payload, "m1");
    assert_eq!(outer(r#"{"payload":[109,51]}"#).payload, "m3");
}

#[test]
fn answers_are_written_as_go_does() {
    assert_eq!(
        to_json("<a & b>\u{2028}\u{2029}\"\\\n\u{1}群/"),
        r#""\u003ca \u0026 b\u003e\u2028\u2029\"\\\n\u0001群/""#
    );
}

/// JSON text, and what it says of the field `uid` and `kind`.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        // Names of real bodies, so that their readers are reached.
        let known = prop::sample::select(vec![
            "uid",
            "list",
            "header",
            "payload",
            "channel_id",
            "channel_type",
            "subscribers",
            "uids",
            "limit",
            "channels",
            "exclude_channel_types",
            "last_msg_seqs",
            "Red_Dot",
            "kind",
        ]);
        let key = prop_oneof![4 => known.prop_map(str::to_owned), 1 => ".*"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_body(&bytes);
    }

    #[test]
    fn no_broken_json_is_too_odd(json in any_json(), cut in any::<prop::sample::Index>(), byte: u8) {
        let mut text = json.to_string().into_bytes();
        let place = cut.index(text.len());
        text[place] = byte;
        fuzz_body(&text);
        fuzz_body(&text[..place]);
    }

    #[test]
    fn the_syntax_is_that_of_json(json in any_json(), blank in "[ \t\r\n]{0,3}", rest in ".*") {
        let text = serde_json::to_string_pretty(&json).unwrap();
        let padded = format!("{blank}{text} {rest}");
        prop_assert_eq!(scan::first_value(padded.as_bytes()), Ok(text.as_bytes()));
    }

    #[test]
    fn what_serde_refuses_is_refused(text in r#"[\[\]{}:,"\\a0-9e.+\- tn]{0,12}"#) {
        // Not a `Value`: that one refuses numbers which no float can hold.
        let whole: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&text);
        let first = scan::first_value(text.as_bytes());
        if whole.is_ok() {
            prop_assert_eq!(first, Ok(text.trim().as_bytes()));
        } else if let Ok(value) = first {
            prop_assert!(value.len() < text.trim_end().len(), "something follows it");
        }
    }

    #[test]
    fn strings_survive_a_round_trip(text: String) {
        prop_assert_eq!(read::<String>(&to_json(&text)), Ok(text));
    }

    #[test]
    fn bytes_survive_a_round_trip(bytes: Vec<u8>, at in any::<prop::sample::Index>()) {
        let json = to_json(&super::Base64(&bytes));
        prop_assert_eq!(read::<Bytes>(&json), Ok(Bytes::from(bytes.clone())));
        // A line break anywhere makes no difference, though it goes another way.
        let mut text = json[1..json.len() - 1].to_vec();
        text.insert(at.index(text.len() + 1), b'\n');
        prop_assert_eq!(base64::decode(&text), Ok(bytes));
    }
}
