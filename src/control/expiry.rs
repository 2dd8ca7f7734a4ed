//! Certificates that end soon: said in the log once a day, until somebody renews them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use crate::config::{CertificateConfig, Config, EXPIRES_SOON};
use crate::observe::utc;
use crate::runtime::Runtime;

/// Seldom enough for a log that is silent in a steady state.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Says so now, and then every day, of the certificates that run then. Dropping the future ends it.
pub async fn tell_of_expiry(runtime: Arc<Runtime>) {
    let mut day = interval(EVERY);
    day.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        day.tick().await;
        let config = runtime.snapshot().config.clone();
        for (listener, certificate) in ending(&config, SystemTime::now()) {
            let (file, not_after) = (&certificate.certificate, utc(certificate.not_after));
            let help = "renew it, such as by `certbot renew`; the new one is used as soon as it is there";
            tracing::warn!(listener, file, not_after, help, "certificate ends soon, or has ended");
        }
    }
}

/// Those that end within [`EXPIRES_SOON`], with their listeners.
fn ending(config: &Config, now: SystemTime) -> impl Iterator<Item = (&str, &CertificateConfig)> {
    let certificates = config.listeners.iter().flat_map(|listener| {
        let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
        certificates.map(|certificate| (listener.name.as_str(), certificate))
    });
    certificates.filter(move |(_, certificate)| certificate.not_after < now + EXPIRES_SOON)
}
