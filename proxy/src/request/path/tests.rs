//! What is equivalent, what is refused, and that nothing else happens.

use proptest::prelude::*;

use super::*;

/// Passed on untouched.
const UNTOUCHED: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/index.html",
    "/a.b",
    "/a..b",
    "/.well-known/x",
    "/..a",
    "/a..",
    "/...",
    "/a/...",
    "/~user",
    "/a_b-c~d",
    "/a:b",
    "/v1/foo:cancel",
    "/@scope/pkg",
    "/a!b",
    "/a$b",
    "/a&b",
    "/it's",
    "/(a)",
    "/a*b",
    "/C++",
    "/a,b",
    "/a=b",
    "/ADMIN",
    "/Admin/x",
    "/a%20b",
    "/C%23",
    "/what%3F",
    "/100%25",
    "/100%25/a",
    "/a%2Bb",
    "/v1/foo%3Acancel",
    "/%E2%82%AC",
    "/caf%C3%A9",
    "/%F0%9F%92%A9",
    "/a%7Cb",
    "/%5Bx%5D",
    "/%7Bid%7D",
    "/%22q%22",
    "/%3Cb%3E",
    "/%60",
    "/%5E",
    "/a%26b",
    "/a%3Db",
    "/a%2Cb",
    "/a%40b",
    "/a%24b",
    "/a%21b",
    "/a%2Ab",
    "/a%27b",
    "/%28a%29",
    "/helloworld.Greeter/SayHello",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/%E2%80%A6",
    "/%25zz",
    "/%25",
];

/// Another spelling of the same.
const RESPELLED: &[(&str, &str)] = &[
    ("/%41", "/A"),
    ("/%61dmin", "/admin"),
    ("/%61%64%6d%69%6E", "/admin"),
    ("/%61%64%6D%69%6e/x", "/admin/x"),
    ("/adm%69n", "/admin"),
    ("/%30", "/0"),
    ("/a%2db", "/a-b"),
    ("/a%2Db", "/a-b"),
    ("/a%5fb", "/a_b"),
    ("/%7euser", "/~user"),
    ("/%7Euser", "/~user"),
    ("/a%2eb", "/a.b"),
    ("/a%2Eb", "/a.b"),
    ("/%2ewell-known", "/.well-known"),
    ("/a/%2e%2e%2e", "/a/..."),
    ("/a%2bb", "/a%2Bb"),
    ("/caf%c3%a9", "/caf%C3%A9"),
    ("/caf%C3%a9/%61", "/caf%C3%A9/a"),
    ("/%e2%82%ac", "/%E2%82%AC"),
    ("/a%3ab", "/a%3Ab"),
    ("/a%7cb", "/a%7Cb"),
    ("/%5bx%5d", "/%5Bx%5D"),
    ("/%41/%42/%43/", "/A/B/C/"),
];

/// No single meaning.
const REFUSED: &[&str] = &[
    // Not an absolute path.
    "",
    "*",
    "a",
    "admin",
    "a/b",
    ".",
    "..",
    "./a",
    "../a",
    "?a",
    "#a",
    "http://host/admin",
    "//",
    "\\admin",
    "%2Fadmin",
    "%2fadmin",
    "host:80",
    " /a",
    "\t/a",
    // Empty segments: merged by some (ISTIO-SECURITY-2021-005, CVE-2021-31920).
    "//admin",
    "///admin",
    "/a//b",
    "/a//",
    "/admin//",
    "/public//admin",
    "//host/admin",
    "/a///b",
    // Dot segments, plain and encoded (CVE-2021-41773, CVE-2021-42013, CVE-2019-9901).
    "/.",
    "/..",
    "/./admin",
    "/../admin",
    "/a/.",
    "/a/..",
    "/a/./b",
    "/a/../b",
    "/public/../admin",
    "/public/./../admin",
    "/%2e",
    "/%2e%2e",
    "/%2E%2E/admin",
    "/.%2e/admin",
    "/%2e./admin",
    "/.%2E/admin",
    "/public/%2e%2e/admin",
    "/public/%2E./admin",
    "/public/.%2e/admin",
    "/a/%2e",
    "/a/%2e/",
    "/cgi-bin/.%2e/.%2e/bin/sh",
    "/a/../../b",
    // Encoded slashes and backslashes (CVE-2021-29492).
    "/a%2Fb",
    "/a%2fb",
    "/admin%2F",
    "/admin%2fx",
    "/%2Fadmin",
    "/%2f%2fadmin",
    "/public%2f..%2fadmin",
    "/..%2fadmin",
    "/..%2Fadmin",
    "/%2e%2e%2fadmin",
    "/public/..%2f..%2fadmin",
    "/a%5Cb",
    "/a%5cb",
    "/..%5cadmin",
    "/%5cadmin",
    "/public%5C..%5Cadmin",
    "/a\\b",
    "/\\admin",
    "/..\\admin",
    "/public\\..\\admin",
    "/a/\\",
    // NUL and other control characters.
    "/admin%00",
    "/admin%00.html",
    "/%00admin",
    "/a%00/b",
    "/a%01",
    "/a%09b",
    "/a%0A",
    "/a%0a",
    "/a%0D%0AX:1",
    "/a%0d%0aSet-Cookie:x",
    "/a%1F",
    "/a%7F",
    "/a%7f",
    "/a\u{0}b",
    "/a\u{1}b",
    "/a\tb",
    "/a\nb",
    "/a\rb",
    "/a\u{7f}",
    // Path parameters: stripped by servlet containers (CVE-2020-1957).
    "/admin;",
    "/admin;x",
    "/admin;x=1",
    "/admin;jsessionid=1/x",
    "/;/admin",
    "/public/..;/admin",
    "/..;/admin",
    "/a;b/c",
    "/admin%3B",
    "/admin%3bx",
    "/public/..%3B/admin",
    "/public/..%3b/admin",
    "/%3b/admin",
    // A second decoding would change it (CVE-2021-42013, CVE-2001-0333).
    "/%2561dmin",
    "/%252e%252e/admin",
    "/%252E%252E%252Fadmin",
    "/a%252fb",
    "/a%252Fb",
    "/a%255cb",
    "/a%2500",
    "/%25%36%31",
    "/%25%32%66",
    "/%%32%66",
    "/%2%35%36%31",
    "/a%253Bb",
    "/%25252e",
    "/%25%35%63",
    // Incomplete or other escapes (IIS's %u).
    "/%",
    "/a%",
    "/a%2",
    "/%2",
    "/%zz",
    "/%0g",
    "/%g0",
    "/%u002f",
    "/%u2215admin",
    "/%U0041",
    "/%-1",
    "/%+1",
    "/% 1",
    "/%2 f",
    "/a%/b",
    "/%0x41",
    "/%%",
    // Overlong, truncated and other invalid UTF-8 (CVE-2000-0884, CVE-2008-2938).
    "/%c0%af",
    "/%C0%AF",
    "/..%c0%af../admin",
    "/%c1%9c",
    "/%C1%9C",
    "/%c0%ae%c0%ae/admin",
    "/%e0%80%af",
    "/%E0%80%AF",
    "/%f0%80%80%af",
    "/%F0%80%80%AF",
    "/%f8%80%80%80%af",
    "/%c0%80",
    "/%80",
    "/%ff",
    "/%FE",
    "/%E9",
    "/caf%e9",
    "/%c3",
    "/%C3/%A9",
    "/%ed%a0%80",
    "/%f4%90%80%80",
    "/%e2%82",
    "/%bf",
    // Full-width forms that a best-fit mapping turns into "/", "\" and ".".
    "/a%EF%BC%8Fb",
    "/a%ef%bc%8fb",
    "/a%EF%BC%BCb",
    "/%EF%BC%8E%EF%BC%8E/admin",
    "/%ef%bc%8e/admin",
    // Bytes that a path has no place for (CVE-2021-39156: fragments).
    "/a#b",
    "/admin#",
    "/#/admin",
    "/a?b",
    "/a b",
    "/a\"b",
    "/a<b",
    "/a>b",
    "/a`b",
    "/a{b}",
    "/a|b",
    "/a^b",
    "/[a]",
    "/caf\u{e9}",
    "/\u{20ac}",
    "/a\u{ff0f}b",
    "/\u{2025}/admin",
];

#[test]
fn each_path_has_its_form_or_none() {
    assert!(UNTOUCHED.len() + RESPELLED.len() + REFUSED.len() >= 250);
    for path in UNTOUCHED {
        assert!(
            matches!(canonical(path.as_bytes()), Ok(Cow::Borrowed(form)) if form == path.as_bytes()),
            "{path}"
        );
    }
    for (path, form) in RESPELLED {
        assert!(
            matches!(canonical(path.as_bytes()), Ok(Cow::Owned(own)) if own == form.as_bytes()),
            "{path}"
        );
    }
    for path in REFUSED {
        assert_eq!(canonical(path.as_bytes()), Err(Ambiguous), "{path:?}");
    }
}

#[test]
fn raw_bytes_beyond_ascii_are_refused() {
    for byte in (0..=0x20).chain(0x7f..=0xff) {
        assert_eq!(canonical(&[b'/', b'a', byte]), Err(Ambiguous), "{byte:#x}");
    }
}

#[test]
fn a_rule_s_prefix_has_the_same_form() {
    for (text, form) in [
        ("/", ""),
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/caf\u{e9}", "/caf%C3%A9"),
        ("/a b", "/a%20b"),
        ("/%61/{id}", "/a/%7Bid%7D"),
        ("/[x]", "/%5Bx%5D"),
    ] {
        assert_eq!(prefix(text).as_deref(), Ok(form), "{text}");
    }
    for text in [
        "", "a", "//", "/a//b", "/..", "/a;b", "/a%2fb", "/a\\b", "/%", "/a/./b", "/\u{0}",
    ] {
        assert_eq!(prefix(text), Err(Ambiguous), "{text:?}");
    }
    assert_eq!(exact("/a/").as_deref(), Ok("/a/"));
}

#[test]
fn a_prefix_covers_whole_segments() {
    for (rule, path, is_covered) in [
        ("", "/", true),
        ("", "/a", true),
        ("/a", "/a", true),
        ("/a", "/a/", true),
        ("/a", "/a/b", true),
        ("/a", "/ab", false),
        ("/a", "/", false),
        ("/a", "/A", false),
        ("/a/b", "/a", false),
        ("/a!", "/a!", true),
    ] {
        assert_eq!(covers(rule, path.as_bytes()), is_covered, "{rule} {path}");
        assert_eq!(
            covers_decoded(rule, path.as_bytes()),
            is_covered,
            "{rule} {path}"
        );
    }
    for (rule, path) in [
        ("/a!", "/a%21"),
        ("/a%21", "/a!/b"),
        ("/a/", "/a/b"),
        ("/caf\u{e9}", "/caf%C3%A9"),
    ] {
        assert!(!covers(rule, path.as_bytes()), "{rule} {path}");
        assert!(covers_decoded(rule, path.as_bytes()), "{rule} {path}");
    }
}

/// Pieces of which attacks are made, so that random paths come close to them.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "a",
        "admin",
        ".",
        "..",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "%25",
        "%",
        "%41",
        "%c3",
        "%a9",
        "%c0",
        "%af",
        ";",
        "%3b",
        "%00",
        "\\",
        "2e",
        "2f",
        "61",
        "+",
        "%2B",
        ":",
        "%3A",
        "\u{e9}",
        "?",
        "#",
        " ",
        "%EF%BC%8F",
        "z",
    ]);
    prop::collection::vec(piece, 0..10)
        .prop_map(|pieces| format!("/{}", pieces.concat()).into_bytes())
}

proptest! {
    #[test]
    fn a_form_is_its_own_form_and_nothing_more_hides_in_it(raw in pieces()) {
        if let Ok(form) = canonical(&raw) {
            prop_assert_eq!(canonical(&form).unwrap(), form.clone());
            let once: Vec<u8> = decoded(&form).collect();
            // One decoding is what it means, and a second one changes nothing.
            prop_assert_eq!(&once, &decoded(&raw).collect::<Vec<u8>>());
            prop_assert_eq!(&once, &decoded(&once).collect::<Vec<u8>>());
            let text = String::from_utf8(once).unwrap();
            prop_assert!(!text.contains("//") && !text.contains('\\') && !text.contains(';') && !text.contains('\0'));
            let has_dots = text.split('/').any(|segment| segment == "." || segment == "..");
            prop_assert!(!has_dots, "{}", text);
            // Decoding makes no new segments.
            prop_assert_eq!(text.matches('/').count(), form.iter().filter(|byte| **byte == b'/').count());
        }
    }

    #[test]
    fn any_bytes_are_taken(raw in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = canonical(&raw);
    }

    #[test]
    fn what_a_prefix_covers_it_covers_decoded(raw in pieces(), rule in pieces()) {
        let Ok(path) = canonical(&raw) else { return Ok(()) };
        let Ok(rule) = prefix(&String::from_utf8_lossy(&rule)) else { return Ok(()) };
        if covers(&rule, &path) {
            prop_assert!(covers_decoded(&rule, &path));
        }
    }
}
