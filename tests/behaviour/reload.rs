//! HUP reads the file again: all of it applies, or none, and nothing that was learned is lost.

use std::time::Duration;

use crate::rig::{Evener, Load, Origin, wait_until};

fn pool(origins: &[&Origin], more: &str) -> String {
    let upstreams: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!("[pools.app]\nupstreams = [{}]\n{more}", upstreams.join(", "))
}

#[test]
fn sighup_reloads() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let mut evener = Evener::start(&pool(&[&one], ""));
    let load = Load::on(evener.address(), 4);
    for turn in 0..10 {
        let origins = if turn % 2 == 0 { vec![&one, &two] } else { vec![&one] };
        let before = two.requests_seen();
        evener.reload(&pool(&origins, ""));
        if turn % 2 == 0 {
            // It serves once its first check has passed.
            two.wait_for_requests(before + 1);
        }
    }
    let answers = load.stop();
    assert_eq!(answers.keys().copied().collect::<Vec<u16>>(), [200], "{answers:?}");
    assert_eq!(evener.generation(), 11);
    assert!(evener.ends_within(Duration::from_millis(1)).is_none());
}

/// pingap's torn reload: the good part of a bad file applied.
#[test]
fn a_bad_part_applies_nothing() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = Evener::start(&pool(&[&one], ""));
    evener.reload_in_vain(&pool(&[&two], "strategy = \"least_conn\""));

    assert!(evener.log().contains("did you mean `least_connections`?"), "{}", evener.log());
    assert_eq!(evener.get("/").body(), "one");
    assert_eq!(evener.generation(), 1);
    evener.admin().expect_metric("evener_config_changes_total", &["result=\"refused\""], 1.0);

    evener.reload(&pool(&[&two], "strategy = \"least_connections\""));
    assert_eq!(evener.get("/").body(), "two");
}

#[test]
fn what_is_fixed_at_the_start_is_refused_by_name() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&pool(&[&origin], ""));
    for (more, setting) in [("[server]\nthreads = 7", "server.threads"), ("[log]\nlevel = \"error\"", "log")]
    {
        evener.reload_in_vain(&format!("{more}\n{}", pool(&[&origin], "")));
        assert!(
            evener.log().contains(&format!("`{setting}` cannot change while running")),
            "{}",
            evener.log()
        );
    }
    assert_eq!(evener.generation(), 1);
}

/// traefik#13913: an unrelated edit set the counts of requests in flight to zero.
#[test]
fn in_flight_survives_a_reload() {
    let (busy, free) = (Origin::answering("busy"), Origin::answering("free"));
    let least = "strategy = \"least_connections\"";
    let evener = Evener::start(&pool(&[&busy], least));
    busy.hold();
    let held: Vec<_> = (0..5).map(|_| evener.get_in_background("/held")).collect();
    busy.wait_for_requests(5);

    evener.reload(&pool(&[&busy, &free], least));
    assert_eq!(evener.admin().upstream("app", &busy)["in_flight"], 5);
    // It serves once its first check has passed.
    wait_until(Duration::from_secs(20), || evener.admin().upstream("app", &free)["eligible"] == true);
    for _ in 0..4 {
        assert_eq!(evener.get("/").body(), "free");
    }

    busy.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    wait_until(Duration::from_secs(20), || evener.admin().upstream("app", &busy)["in_flight"] == 0);
}

/// caddy#7625, traefik#13223, haproxy#918: after a reload everybody was taken for healthy.
#[test]
fn a_reload_does_not_heal_the_sick() {
    let check = "health_check = { interval = \"10s\", fast_interval = \"10s\", path = \"/healthz\" }";
    let (sick, well) = (Origin::answering("sick"), Origin::answering("well"));
    sick.fall_sick();
    let evener = Evener::start(&pool(&[&sick, &well], check));
    sick.get_well();

    evener.reload(&pool(&[&sick, &well], &format!("{check}\ntimeouts = {{ read = \"5s\" }}")));
    assert_eq!(evener.admin().upstream("app", &sick)["health"], "down");
    for _ in 0..20 {
        assert_eq!(evener.get("/").body(), "well");
    }
}

/// traefik, caddy#7304: the series of what is gone went on for ever.
#[test]
fn a_removed_upstream_takes_its_series() {
    let (stays, goes) = (Origin::answering("stays"), Origin::answering("goes"));
    let evener = Evener::start(&pool(&[&stays, &goes], ""));
    (0..4).for_each(|_| drop(evener.get("/").expect_status(200)));
    let before = evener.admin().metric("evener_upstream_requests_total", &[&stays.address()]);

    evener.reload(&pool(&[&stays], ""));
    let page = evener.admin().get("/metrics").body();
    assert!(!page.contains(&goes.address()) && page.contains(&stays.address()));
    let after = evener.admin().metric("evener_upstream_requests_total", &[&stays.address()]);
    assert!(after >= before, "a counter fell from {before} to {after}");
}
