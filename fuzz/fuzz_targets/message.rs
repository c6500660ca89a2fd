//! Reads arbitrary bytes as a message: header fields, MIME structure, dates, addresses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let body = mail::header::body_offset(data);
    assert!(body <= data.len());
    for field in mail::header::fields(data) {
        let value = field.value();
        let _ = mail::date::parse_rfc5322(&value);
        if let Ok(address) = mail::EmailAddress::parse(&value) {
            assert_eq!(mail::EmailAddress::parse(&address.to_string()), Ok(address));
        }
    }
    let structure = mail::mime::Structure::of(data);
    assert!(!structure.parts().is_empty());
});
