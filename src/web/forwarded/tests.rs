//! Whose word is taken, and what is made of it.

use super::*;

/// What a request with `given` headers from `peer` becomes: the client's address, and
/// X-Forwarded-For, -Proto, -Host and Forwarded.
fn rewritten<V: AsRef<[u8]>>(peer: &str, given: &[(&'static str, V)]) -> [String; 5] {
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().unwrap());
    let trusted = Trusted::new(trusted.into());
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("shop"));
    for (name, value) in given {
        headers.append(*name, HeaderValue::from_bytes(value.as_ref()).unwrap());
    }
    let peer = Peer::new(SocketAddr::new(peer.parse().unwrap(), 1), "http", &trusted);
    let client = peer.rewrite(&mut headers, &trusted).address;
    let one = |name: HeaderName| {
        assert_eq!(headers.get_all(&name).iter().count(), 1, "{name}");
        headers[name].to_str().unwrap().to_owned()
    };
    assert!(!headers.contains_key(REAL_IP));
    let told = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, FORWARDED].map(one);
    let [forwarded_for, proto, host, forwarded] = told;
    [client.to_string(), forwarded_for, proto, host, forwarded]
}

#[test]
fn what_somebody_says_who_is_not_trusted_is_dropped() {
    let spoofed = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("forwarded", "for=1.1.1.1;proto=https;host=evil"),
        ("x-real-ip", "1.1.1.1"),
    ];
    for given in [&[][..], &spoofed[..]] {
        assert_eq!(
            rewritten("203.0.113.7", given),
            ["203.0.113.7", "203.0.113.7", "http", "shop", "for=203.0.113.7;proto=http"]
        );
    }
    assert_eq!(
        rewritten("2001:db8::7", &spoofed),
        ["2001:db8::7", "2001:db8::7", "http", "shop", "for=\"[2001:db8::7]\";proto=http"]
    );
    assert_eq!(rewritten("::ffff:203.0.113.7", &spoofed)[0], "203.0.113.7");
}

#[test]
fn chains_are_read_from_the_right_as_far_as_they_are_trusted() {
    for (given, client, forwarded_for) in [
        (&[][..], "10.0.0.1", "10.0.0.1"),
        (&["1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (&["6.6.6.6, 1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (&["6.6.6.6", "1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (&["1.1.1.1, 10.0.0.2"], "1.1.1.1", "1.1.1.1, 10.0.0.2, 10.0.0.1"),
        (&["10.6.6.6, 1.1.1.1, fd00::2"], "1.1.1.1", "1.1.1.1, fd00::2, 10.0.0.1"),
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        (&["1.1.1.1, nonsense"], "10.0.0.1", "10.0.0.1"),
        (&["1.1.1.1, nonsense, 10.0.0.2"], "10.0.0.2", "10.0.0.2, 10.0.0.1"),
        (&[""], "10.0.0.1", "10.0.0.1"),
        (&["1.1.1.1:1234"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (&["[2001:db8::1]:1234"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        (&["[2001:db8::1]"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        (&["::ffff:1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
    ] {
        let headers: Vec<_> = given.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let told = rewritten("10.0.0.1", &headers);
        assert_eq!(told[..2], [client, forwarded_for], "{given:?}");
    }
}

#[test]
fn a_trusted_proxy_may_say_the_rest_too() {
    for (given, proto, host, forwarded) in [
        (&[][..], "http", "shop", "for=10.0.0.1;host=\"shop\";proto=http"),
        (
            &[("x-forwarded-proto", "https"), ("x-forwarded-host", "merch.example")],
            "https",
            "merch.example",
            "for=10.0.0.1;host=\"merch.example\";proto=https",
        ),
        (
            &[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a\"b")],
            "http",
            "shop",
            "for=10.0.0.1;host=\"shop\";proto=http",
        ),
        (
            &[("forwarded", "for=6.6.6.6, For=\"[2001:db8::1]:99\";proto=https")],
            "https",
            "shop",
            "for=\"[2001:db8::1]\";host=\"shop\";proto=https, for=10.0.0.1",
        ),
    ] {
        assert_eq!(rewritten("10.0.0.1", given)[2..], [proto, host, forwarded], "{given:?}");
    }
    let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.1.1.1")];
    assert_eq!(rewritten("10.0.0.1", &both)[0], "1.1.1.1");
}

/// Who the client is of a request that a trusted proxy passed on with these lines of `name`.
fn client(name: &'static str, lines: &[&str]) -> String {
    let given: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
    rewritten("10.0.0.1", &given)[0].clone()
}

#[test]
fn an_address_is_found_however_it_is_written() {
    const PROXY: &str = "10.0.0.1";
    for (lines, expected) in [
        (&["192.0.2.1,"][..], "192.0.2.1"),
        (&[",192.0.2.1, ,"], "192.0.2.1"),
        (&["192.0.2.1", ""], "192.0.2.1"),
        (&["192.0.2.1", " , "], "192.0.2.1"),
        (&["\t192.0.2.1\t,\t10.0.0.2 "], "192.0.2.1"),
        (&["6.6.6.6,192.0.2.1"], "192.0.2.1"),
        (&[",", ","], PROXY),
        (&["192.0.2.1:65535"], "192.0.2.1"),
        (&["192.0.2.1:_hidden"], "192.0.2.1"),
        (&["\"192.0.2.1\""], "192.0.2.1"),
        (&["\"192.0.2.1:80\", 10.0.0.2"], "192.0.2.1"),
        (&["2001:DB8:0::1"], "2001:db8::1"),
        (&["\"[2001:db8::1]:443\""], "2001:db8::1"),
        (&["fe80::1%eth0"], "fe80::1"),
        (&["[fe80::1%25eth0]:80"], "fe80::1"),
        (&["[::ffff:192.0.2.1]:80"], "192.0.2.1"),
        (&["::ffff:c000:201"], "192.0.2.1"),
        // Nothing of these is an address, and nothing before them is believed.
        (&["192.0.2.1, unknown"], PROXY),
        (&["192.0.2.1, _hidden"], PROXY),
        (&["192.0.2.1, 192.0.2.010"], PROXY),
        (&["192.0.2.1, 192.0.2.256"], PROXY),
        (&["192.0.2.1, 192.0.2"], PROXY),
        (&["192.0.2.1, 3221225985"], PROXY),
        (&["192.0.2.1, 192.0.2.2:"], PROXY),
        (&["192.0.2.1, 192.0.2.2:800000"], PROXY),
        (&["192.0.2.1, 192.0.2.2:+80"], PROXY),
        (&["192.0.2.1, [192.0.2.2]"], PROXY),
        (&["192.0.2.1, [2001:db8::1"], PROXY),
        (&["192.0.2.1, [2001:db8::1]x"], PROXY),
        (&["192.0.2.1, 192.0.2.2%eth0"], PROXY),
        (&["192.0.2.1, 192.0.2.2 10.0.0.2"], PROXY),
        (&["192.0.2.1, 192.0.2.2;10.0.0.2"], PROXY),
        (&["192.0.2.1, 10.0.0.0/8"], PROXY),
        (&["192.0.2.1, nonsense", "10.0.0.2"], "10.0.0.2"),
        // Whoever opens a quote swallows nobody's words but its own.
        (&["\", 192.0.2.1"], "192.0.2.1"),
        (&["\"6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (&["\", \"[2001:db8::1]:443\""], "2001:db8::1"),
        (&["\\, 192.0.2.1"], "192.0.2.1"),
    ] {
        assert_eq!(client("x-forwarded-for", lines), expected, "{lines:?}");
    }
}

#[test]
fn an_element_of_forwarded_is_found_however_it_is_written() {
    const PROXY: &str = "10.0.0.1";
    for (lines, expected) in [
        (&["for=192.0.2.1, ,"][..], "192.0.2.1"),
        (&["for=192.0.2.1", ";", ", ;"], "192.0.2.1"),
        (&["FOR=192.0.2.1;PROTO=https"], "192.0.2.1"),
        (&["proto=https;;for=192.0.2.1;"], "192.0.2.1"),
        (&["proto=https ; for=192.0.2.1\t"], "192.0.2.1"),
        (&["for=\"192.0.2.1:8080\""], "192.0.2.1"),
        (&["for=\"192.0.2.1:_port\""], "192.0.2.1"),
        (&["for=\"192\\.0.2.1\""], "192.0.2.1"),
        (&["for=\"[2001:db8::1]:443\";by=\"a,b;for=6.6.6.6\""], "2001:db8::1"),
        (&["for=192.0.2.1;ext=\"a\\\", for=6.6.6.6, \\\\\""], "192.0.2.1"),
        (&["for=192.0.2.1;by=10.0.0.1, for=10.0.0.2"], "192.0.2.1"),
        (&["for=6.6.6.6", "for=192.0.2.1", "for=10.0.0.2"], "192.0.2.1"),
        (&["for=2001:db8::1"], "2001:db8::1"),
        (&["for=\", for=192.0.2.1"], "192.0.2.1"),
        (&["for=\", for=\"[2001:db8::1]\""], "2001:db8::1"),
        (&["for=192.0.2.1, for=unknown"], PROXY),
        (&["for=192.0.2.1, for=_hidden"], PROXY),
        (&["for=192.0.2.1, for=\"_hidden:_port\""], PROXY),
        (&["for=192.0.2.1, by=10.0.0.2"], PROXY),
        (&["for=192.0.2.1, for="], PROXY),
        (&["for=192.0.2.1, for"], PROXY),
        (&["for=192.0.2.1, for=192.0.2.2;for=192.0.2.3"], PROXY),
        (&["for=192.0.2.1, for=\"192.0.2.2\"x"], PROXY),
        (&["for=192.0.2.1, 192.0.2.2"], PROXY),
        (&["for=192.0.2.1, for=192.0.2.2\""], PROXY),
    ] {
        assert_eq!(client("forwarded", lines), expected, "{lines:?}");
    }
    let spoofed = [("x-forwarded-for", ","), ("forwarded", "for=192.0.2.1")];
    assert_eq!(rewritten("10.0.0.1", &spoofed)[0], "192.0.2.1");
}

#[test]
fn scheme_and_host_are_those_of_the_step_whose_address_is_the_clients() {
    for (addresses, schemes, scheme) in [
        ("", "https", "https"),
        ("", "HTTPS", "https"),
        ("", "https,http", "https"),
        ("", " ,https , ", "https"),
        ("", "wss", "https"),
        ("", "WS", "http"),
        ("", "gopher", "http"),
        ("", "\"https\"", "http"),
        ("192.0.2.1", "https", "https"),
        ("192.0.2.1", "https,http", "https"),
        ("192.0.2.1, 10.0.0.2", "https,http", "https"),
        ("192.0.2.1, 10.0.0.2", "http, https", "http"),
        ("192.0.2.1, 10.0.0.2", "https", "https"),
        // What the client itself put before is not believed.
        ("6.6.6.6, 192.0.2.1", "https, http", "http"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.2", "https, http, https", "http"),
        ("6.6.6.6, 192.0.2.1", "http, HTTPS", "https"),
        ("192.0.2.1, unknown", "http, https", "https"),
    ] {
        let given = [("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)];
        assert_eq!(rewritten("10.0.0.1", &given)[2], scheme, "{given:?}");
    }
    for (addresses, hosts, host) in [
        ("192.0.2.1, 10.0.0.2", "merch.example, inner", "merch.example"),
        ("6.6.6.6, 192.0.2.1", "evil.example, merch.example:8443", "merch.example:8443"),
        ("192.0.2.1", ",merch.example", "merch.example"),
        ("192.0.2.1", "[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("192.0.2.1", "a b", "shop"),
    ] {
        let given = [("x-forwarded-for", addresses), ("x-forwarded-host", hosts)];
        assert_eq!(rewritten("10.0.0.1", &given)[3], host, "{given:?}");
    }
    for (forwarded, scheme, host) in [
        (
            "for=192.0.2.1;proto=HTTPS;host=\"merch.example:8443\", for=10.0.0.2;proto=http",
            "https",
            "merch.example:8443",
        ),
        ("for=6.6.6.6;proto=https;host=evil, for=192.0.2.1;proto=http", "http", "shop"),
        ("for=unknown;proto=https", "https", "shop"),
        ("for=192.0.2.1;proto=\"ht\\tps\"", "https", "shop"),
    ] {
        let told = rewritten("10.0.0.1", &[("forwarded", forwarded)]);
        assert_eq!(told[2..4], [scheme, host], "{forwarded}");
    }
    let both = [("forwarded", "for=192.0.2.1;proto=http"), ("x-forwarded-proto", "https")];
    assert_eq!(rewritten("10.0.0.1", &both)[2], "https");
}

#[test]
fn what_is_no_text_takes_nothing_else_along() {
    for (given, told) in [
        (&[("x-forwarded-for", &b"\xe9, 192.0.2.1"[..])][..], ["192.0.2.1", "http", "shop"]),
        (&[("x-forwarded-for", b"192.0.2.1, \xe9")], ["10.0.0.1", "http", "shop"]),
        (
            &[("forwarded", b"for=\"\xe9\", for=192.0.2.1;proto=https;host=merch.example")],
            ["192.0.2.1", "https", "merch.example"],
        ),
        (
            &[
                ("x-forwarded-for", b"6.6.6.6, 192.0.2.1"),
                ("x-forwarded-proto", b"\xe9, https"),
                ("x-forwarded-host", b"\xe9, merch.example"),
            ],
            ["192.0.2.1", "https", "merch.example"],
        ),
    ] {
        let [client, _, proto, host, _] = rewritten("10.0.0.1", given);
        assert_eq!([client, proto, host], told, "{given:?}");
    }
}

#[test]
fn a_list_is_believed_as_far_as_a_way_can_be_long() {
    let chain = ["192.0.2.1"].into_iter().chain([", 10.0.0.2"; LONGEST_CHAIN - 1]);
    assert_eq!(client("x-forwarded-for", &[&chain.collect::<String>()]), "192.0.2.1");
    let longer = ["192.0.2.1"].into_iter().chain([", 10.0.0.2"; LONGEST_CHAIN]);
    assert_eq!(client("x-forwarded-for", &[&longer.collect::<String>()]), "10.0.0.2");
}

#[test]
fn nothing_else_that_a_stranger_says_of_the_way_goes_through() {
    let trusted = Trusted::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let names = ["x-forwarded-port", "x-forwarded-ssl", "x-forwarded-prefix", "x-real-ip"];
    for (peer, kept) in [("203.0.113.7:1", 0), ("10.0.0.1:1", 3)] {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let _ = Peer::new(peer.parse().unwrap(), "http", &trusted).rewrite(&mut headers, &trusted);
        assert_eq!(names.iter().filter(|name| headers.contains_key(**name)).count(), kept);
    }
}
