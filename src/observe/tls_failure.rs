//! Why a TLS handshake with an upstream failed, in words that help whoever reads the log.

/// The reason in an error of the engine, such as `TLS connect() failed: … cause: invalid peer certificate:
/// UnknownIssuer, SNI: app.internal`.
///
/// The same trouble gives the same words each time, though rustls tells by how many seconds a certificate is
/// too old; so they can be told once.
pub fn tls_failure(error: &str) -> String {
    let known = REASONS.iter().find(|(sign, _)| error.contains(sign));
    if let Some((_, reason)) = known {
        return (*reason).to_owned();
    }
    // Before it, the engine says where it was; after it, from which port of ours.
    let cause = error.split_once("tls connect error cause: ").map_or(error, |(_, cause)| cause);
    let cause = cause.split(", SNI: ").next().unwrap_or(cause);
    let cause = cause.strip_prefix("invalid peer certificate: ").unwrap_or(cause);
    match cause.rsplit_once("received fatal alert: ") {
        Some((_, alert)) => format!("it refused the handshake: {alert}"),
        None => cause.trim().to_owned(),
    }
}

/// What rustls says, and what it means here; the first that fits.
const REASONS: [(&str, &str); 12] = [
    ("UnknownIssuer", "its certificate is signed by nobody that `tls.ca` names (or this machine trusts)"),
    ("certificate expired", "its certificate has expired"),
    ("certificate not valid yet", "its certificate is not valid yet; or the clock here is late"),
    ("CaUsedAsEndEntity", "its certificate is one of a CA, which no server may show"),
    ("BadSignature", "its certificate is not signed by the CA that it names"),
    ("UnsupportedCertVersion", "its certificate is of version 1, which names no hosts"),
    ("InvalidContentType", "it does not speak TLS on this port"),
    ("handshake eof", "it closed the connection in the handshake"),
    ("NoApplicationProtocol", "it speaks none of the protocols that are offered; see `protocol` of the pool"),
    ("alert: CertificateRequired", "it wants a client certificate; see `tls.certificate` and `tls.key`"),
    ("alert: UnknownCA", "it does not know the CA of our client certificate"),
    ("alert: CertificateExpired", "our client certificate has expired"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_short_and_the_same_each_time() {
        let engine = |cause: &str| {
            format!(
                " TLSHandshakeFailure context: TLS connect() failed:  TLSHandshakeFailure context: tls connect \
                 error cause: {cause}, SNI: app.internal cause: local address 127.0.0.1:60294"
            )
        };
        let old = |seconds| {
            engine(&format!(
                "invalid peer certificate: certificate expired: verification time 1700000{seconds} (UNIX), but \
                 certificate is not valid after 1600000000 ({seconds} seconds ago)"
            ))
        };
        assert_eq!(tls_failure(&old(100)), tls_failure(&old(200)));
        assert_eq!(tls_failure(&old(100)), "its certificate has expired");
        assert_eq!(
            tls_failure(&engine(
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for b"
            )),
            "certificate not valid for name \"a\"; certificate is only valid for b"
        );
        assert_eq!(
            tls_failure(&engine("received fatal alert: ProtocolVersion")),
            "it refused the handshake: ProtocolVersion"
        );
    }
}
