//! A link as a QR code. Pure.

use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};

use crate::http::query::{Given, Plus, fields};
use crate::model::mistake::{Fault, Mistake, named};

/// The longest link that is drawn: longer than any of the demo. The longer it is, the more work
/// it is to draw, and to read from a screen.
const MAX_LINK_BYTES: usize = 192;

/// Draws the link in a query as SVG. The SVG does not contain the link itself.
///
/// # Errors
/// Returns the mistake in the query.
pub(super) fn draw(query: &str) -> Result<String, Mistake> {
    let mut given = Given::default();
    for (name, value) in fields(query.as_bytes(), Plus::Literal) {
        if name.as_deref() == Some("link") {
            given.add(value);
        }
    }
    let link = given.required().and_then(|link| match link {
        "" => Err(Fault::Empty),
        long if long.len() > MAX_LINK_BYTES => Err(Fault::LongerThan(MAX_LINK_BYTES)),
        good if good.starts_with("http://") || good.starts_with("https://") => Ok(link),
        _ => Err(Fault::NotALink),
    });
    let link = named("link", link)?;
    let code = QrCode::with_error_correction_level(link.as_bytes(), EcLevel::M)
        .expect("it has room for far more");
    // Dark on light even on a dark page, with the quiet zone: not every scanner reads the
    // inverse.
    Ok(code
        .render()
        .dark_color(svg::Color("#000"))
        .light_color(svg::Color("#fff"))
        .quiet_zone(true)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_dark_on_white_and_does_not_spell_its_link() {
        let svg = draw("link=https%3A%2F%2Fa.example%2F%3Ckey%3E").expect("good");
        assert!(
            svg.contains(r##"fill="#fff""##) && svg.contains(r##"<path fill="#000""##),
            "{svg}"
        );
        assert!(
            svg.contains("viewBox")
                && svg.contains(r#"shape-rendering="crispEdges""#)
                && !svg.contains("key"),
            "{svg}"
        );
    }

    #[test]
    fn each_mistake_is_named() {
        let link = |length: usize| format!("link=http://{}", "%61".repeat(length - 7));
        assert!(draw(&link(192)).is_ok());
        for (query, message) in [
            ("", "link: missing"),
            ("link=", "link: empty"),
            ("link=http://a&link=http://b", "link: given twice"),
            ("link=%zz", "link: bad percent-encoding"),
            (
                "link=javascript:1",
                "link: must be a link that begins with http:// or https://",
            ),
            (&link(193), "link: longer than 192 bytes"),
        ] {
            assert_eq!(
                draw(query).map_err(|mistake| mistake.to_string()),
                Err(message.into()),
                "{query}"
            );
        }
    }
}
