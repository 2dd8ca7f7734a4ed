//! `GET` of a path whose status must be one of those expected.

use http::header::{HeaderName, HeaderValue};

use super::Answer;
use super::question::{Call, failed};

/// What is asked, and which answers are good.
pub(super) struct Question<'a> {
    pub path: &'a str,
    pub host: Option<&'a str>,
    pub status: &'a [u16],
    pub headers: &'a [(HeaderName, HeaderValue)],
}

/// Asks on a fresh connection: a kept one would not notice that nobody accepts any more.
pub(super) async fn ask(call: &Call<'_>, question: &Question<'_>) -> Answer {
    match status(call, question).await {
        Ok(status) if question.status.contains(&status) => Answer::Well,
        Ok(status) => Answer::Sick(format!("status {status}, expected {:?}", question.status)),
        Err(error) => failed(&error),
    }
}

async fn status(call: &Call<'_>, question: &Question<'_>) -> pingora::Result<u16> {
    let request = call.request("GET", question.path, question.host, question.headers)?;
    let mut session = call.begin(request).await?;
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |response| response.status.as_u16());
        if !(100..200).contains(&status) {
            session.shutdown().await;
            return Ok(status);
        }
    }
}
