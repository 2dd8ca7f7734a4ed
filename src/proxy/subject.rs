//! The subject of a certificate as text (RFC 4514), fit for a header.

use std::fmt::Write;

use x509_parser::der_parser::asn1_rs::{Any, Oid};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// `CN=alice,OU=ops,O=Example,C=DE`: the last part of the name first, each value escaped so that it cannot be
/// taken for more than one. What is not plain ASCII stands as `\XX`, byte by byte in UTF-8, which the RFC allows
/// and headers need.
pub(super) fn text_of(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let name = short_name(attribute.attr_type());
    match (name, attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped(value)),
        (name, _) => {
            let dotted = || attribute.attr_type().to_id_string();
            let name = name.map_or_else(dotted, str::to_owned);
            format!("{name}=#{}", in_hexadecimal(attribute.attr_value()))
        }
    }
}

/// Those of RFC 4514 §3, others that are registered for LDAP, and the one for which everybody uses OpenSSL's.
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    const NAMES: [(&str, &str); 20] = [
        ("2.5.4.3", "CN"),
        ("2.5.4.4", "SN"),
        ("2.5.4.5", "serialNumber"),
        ("2.5.4.6", "C"),
        ("2.5.4.7", "L"),
        ("2.5.4.8", "ST"),
        ("2.5.4.9", "STREET"),
        ("2.5.4.10", "O"),
        ("2.5.4.11", "OU"),
        ("2.5.4.12", "title"),
        ("2.5.4.13", "description"),
        ("2.5.4.15", "businessCategory"),
        ("2.5.4.17", "postalCode"),
        ("2.5.4.42", "GN"),
        ("2.5.4.43", "initials"),
        ("2.5.4.44", "generationQualifier"),
        ("2.5.4.46", "dnQualifier"),
        ("0.9.2342.19200300.100.1.1", "UID"),
        ("0.9.2342.19200300.100.1.25", "DC"),
        ("1.2.840.113549.1.9.1", "emailAddress"),
    ];
    let dotted = oid.to_id_string();
    NAMES.iter().find(|(known, _)| *known == dotted).map(|(_, name)| *name)
}

fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            // Cannot fail: a `String` takes whatever is written.
            other => {
                let _ = write!(text, "\\{other:02X}");
            }
        }
    }
    text
}

/// The value as it stands in the certificate, its type and length included.
fn in_hexadecimal(value: &Any<'_>) -> String {
    let header = &value.header;
    let tag = u32::from(header.class() as u8) << 6
        | u32::from(header.is_constructed()) << 5
        | (header.tag().0 & 0x1f);
    let bytes: Vec<u8> = value.data.len().to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
    let length = match bytes.as_slice() {
        [] => vec![0],
        [short @ ..=0x7f] => vec![*short],
        long => [&[0x80 | u8::try_from(long.len()).unwrap_or(0)], long].concat(),
    };
    let tag = u8::try_from(tag).unwrap_or(0);
    [tag].iter().chain(&length).chain(value.data).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn text(parts: &[(DnType, DnValue)]) -> String {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
        text_of(certificate.subject())
    }

    fn utf8(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    #[test]
    fn the_last_part_of_the_name_comes_first() {
        let name = [
            (DnType::CountryName, utf8("DE")),
            (DnType::OrganizationName, utf8("Example")),
            (DnType::CommonName, utf8("alice")),
        ];
        assert_eq!(text(&name), "CN=alice,O=Example,C=DE");
        assert_eq!(text(&[]), "");
    }

    /// The examples of RFC 4514 §4, but for the one in Cyrillic, and some that would break a header.
    #[test]
    fn no_value_passes_for_more_than_one() {
        for (value, expected) in [
            ("James \"Jim\" Smith, III", "CN=James \\\"Jim\\\" Smith\\, III"),
            ("Before\rAfter", "CN=Before\\0DAfter"),
            ("Lučić", "CN=Lu\\C4\\8Di\\C4\\87"),
            ("#admin", "CN=\\#admin"),
            (" admin ", "CN=\\ admin\\ "),
            ("a+b=c\\", "CN=a\\+b=c\\\\"),
            ("a\r\nX-Admin: 1", "CN=a\\0D\\0AX-Admin: 1"),
            ("nul\0", "CN=nul\\00"),
            ("", "CN="),
        ] {
            assert_eq!(text(&[(DnType::CommonName, utf8(value))]), expected);
        }
    }

    #[test]
    fn what_has_no_text_or_no_name_stands_in_hexadecimal() {
        let unknown = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 1466, 0]);
        assert_eq!(text(&[(unknown, utf8("Hi"))]), "1.3.6.1.4.1.1466.0=#0c024869");
        let bmp = DnValue::BmpString("A".parse().unwrap());
        assert_eq!(text(&[(DnType::CommonName, bmp)]), "CN=#1e020041");
        let long = utf8(&"x".repeat(300));
        let unknown = DnType::CustomDnType(vec![1, 2, 3]);
        assert!(text(&[(unknown, long)]).starts_with("1.2.3=#0c82012c7878"));
    }
}
