//! What a rule's filters do on the way, in words.
//!
//! Part of `decide`, for whoever reads `weft explain`. Pure.

use crate::discovery::{Filters, PathEdit};

pub(super) fn of(filters: Option<&Filters>) -> Vec<String> {
    let Some(filters) = filters else {
        return Vec::new();
    };
    let mut words = Vec::new();
    if filters.cors.is_some() {
        words.push("preflights of browsers are answered here".to_owned());
    }
    if let Some(to) = &filters.redirect {
        words.push(format!("{} instead of a backend's answer", to.status));
    }
    let edits = [
        ("request", &filters.request.fields),
        ("response", &filters.response),
    ];
    for (of, edits) in edits {
        words.extend(edits.iter().map(|edit| {
            let what = match (edit.keeps, edit.values.is_empty()) {
                (true, _) => "is added to",
                (false, false) => "is set",
                (false, true) => "is removed",
            };
            format!("{of} header {} {what}", edit.name)
        }));
    }
    if let Some(host) = &filters.request.host {
        words.push(format!(
            "host becomes {}",
            String::from_utf8_lossy(host.as_bytes())
        ));
    }
    match filters.path() {
        Some(PathEdit::Full(path)) => words.push(format!("path becomes {path}")),
        Some(PathEdit::Prefix(path)) => {
            words.push(format!("the path's prefix becomes {path}/"));
        }
        None => {}
    }
    words.extend(filters.mirrors.iter().map(|mirror| {
        let (some, all) = (mirror.numerator, mirror.denominator);
        match &mirror.backend {
            Ok(backend) => format!(
                "a copy of {some} in {all} goes to {}:{}",
                backend.service, backend.port
            ),
            Err(why) => format!("no copy of {some} in {all} is made: {why}"),
        }
    }));
    words
}
