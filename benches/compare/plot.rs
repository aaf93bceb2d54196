//! The picture for `docs/performance.md`: one line per row, one dot per server, throughput beside
//! CPU time, both on logarithmic scales. Readable on a light and on a dark page.

use crate::results::Results;
use std::fmt::Write as _;

/// The rows shown, where they were measured.
const ROWS: [&str; 9] = [
    "512 x 1",
    "1428 x 1",
    "8192 x 1",
    "65464 x 1",
    "512 x 16",
    "1428 x 16",
    "1428 x 64",
    "1428 x 512",
    "65464 x 16",
];

/// Servers, their colours, and whether the dot is a ring: what only marks the limit of the machine.
const SERVERS: [(&str, &str, bool); 8] = [
    ("bare sender", "#8b949e", true),
    ("floor", "#b08a3c", true),
    ("atftpd", "#bf5af2", false),
    ("dnsmasq", "#2ea8a8", false),
    ("tftpd-hpa", "#7a8b3a", false),
    ("r-tftpd", "#c2762f", false),
    ("rs-tftpd", "#3f83f8", false),
    ("tftpool", "#e5484d", false),
];

const LINE: f64 = 34.0;
const TOP: f64 = 78.0;
const LABELS: f64 = 96.0;
const WIDTH: f64 = 380.0;
const GAP: f64 = 40.0;

/// One half of the picture.
struct Panel {
    figure: &'static str,
    title: &'static str,
    left: f64,
    low: f64,
    high: f64,
}

impl Panel {
    /// From the smallest to the largest value measured, in whole powers of ten.
    fn new(results: &Results, figure: &'static str, title: &'static str, left: f64) -> Self {
        let values = ROWS.iter().flat_map(|row| {
            SERVERS
                .iter()
                .filter_map(|(server, ..)| results.figures(row, server)?.get(figure).copied())
        });
        let values: Vec<f64> = values
            .filter(|value| *value > 0.0)
            .map(f64::log10)
            .collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let high = values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max)
            .ceil();
        let (low, high) = if values.is_empty() {
            (0.0, 1.0)
        } else {
            (low, high.max(low + 1.0))
        };
        Self {
            figure,
            title,
            left,
            low,
            high,
        }
    }

    fn x(&self, value: f64) -> f64 {
        self.left + WIDTH * (value.log10() - self.low) / (self.high - self.low)
    }

    fn draw(&self, results: &Results, rows: &[&str], svg: &mut String) {
        let bottom = TOP + LINE * rows.len() as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" class=\"title\">{}</text>",
            self.left,
            TOP - 26.0,
            self.title
        );
        for power in self.low as i32..=self.high as i32 {
            let value = 10f64.powi(power);
            let x = self.x(value);
            let _ = writeln!(svg, "<path d=\"M{x:.1} {TOP}V{bottom}\" class=\"grid\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{}\" class=\"tick\">{value}</text>",
                TOP - 8.0
            );
        }
        for (index, row) in rows.iter().enumerate() {
            let y = TOP + LINE * (index as f64 + 0.5);
            for (server, colour, ring) in SERVERS {
                let value = results
                    .figures(row, server)
                    .and_then(|figures| figures.get(self.figure));
                let Some(&value) = value.filter(|value| **value > 0.0) else {
                    continue;
                };
                let x = self.x(value);
                let paint = if ring {
                    format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"")
                } else {
                    format!("fill=\"{colour}\"")
                };
                let radius = if server == "tftpool" { 6.5 } else { 5.0 };
                let shown = digits(value);
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"{radius}\" {paint}><title>{row}, {server}: {shown}</title></circle>"
                );
                if server == "tftpool" {
                    let _ = writeln!(
                        svg,
                        "<text x=\"{x:.1}\" y=\"{}\" class=\"value\">{shown}</text>",
                        y - 9.0
                    );
                }
            }
        }
    }
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value {
        large if large >= 100.0 => format!("{large:.0}"),
        some if some >= 10.0 => format!("{some:.1}"),
        few if few >= 1.0 => format!("{few:.2}"),
        none => format!("{none:.3}"),
    }
}

/// The whole picture.
pub(crate) fn svg(results: &Results) -> String {
    let is_measured = |row: &&str| results.rows.iter().any(|it| it.name == **row);
    let rows: Vec<&str> = ROWS.into_iter().filter(|row| is_measured(row)).collect();
    let second = LABELS + WIDTH + GAP;
    let (width, height) = (second + WIDTH + 24.0, TOP + LINE * rows.len() as f64 + 30.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
         <title>Throughput and CPU time of one client's transfers, block size x window</title>\n\
         <style>text{{fill:#1f2328}}.grid{{stroke:#d1d9e0;fill:none}}.tick,.foot{{fill:#59636e}}.title{{font-weight:600}}\
         .tick,.value{{text-anchor:middle;font-size:11px}}.row{{text-anchor:end}}.value{{font-weight:600}}.foot{{font-size:10px}}\
         @media (prefers-color-scheme:dark){{text{{fill:#f0f6fc}}.grid{{stroke:#3d444d}}.tick,.foot{{fill:#9198a1}}}}</style>\n"
    );
    let mut x = LABELS;
    for (server, colour, ring) in SERVERS.into_iter().rev() {
        if !results
            .rows
            .iter()
            .any(|row| row.servers.iter().any(|(name, _)| name == server))
        {
            continue;
        }
        let paint = if ring {
            format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"")
        } else {
            format!("fill=\"{colour}\"")
        };
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"18\" r=\"5\" {paint}/><text x=\"{}\" y=\"22\">{server}</text>",
            x + 10.0
        );
        x += 32.0 + 7.0 * server.len() as f64;
    }
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + LINE * (index as f64 + 0.5);
        let right = second + WIDTH;
        let _ = writeln!(svg, "<path d=\"M{LABELS} {y}H{right}\" class=\"grid\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" class=\"row\">{row}</text>",
            LABELS - 14.0,
            y + 4.0
        );
    }
    let panels = [
        Panel::new(results, "mib_per_second", "MiB/s (more is better)", LABELS),
        Panel::new(
            results,
            "cpu_seconds_per_gib",
            "CPU seconds per GiB (less is better)",
            second,
        ),
    ];
    for panel in &panels {
        panel.draw(results, &rows, &mut svg);
    }
    let head = results.head.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{LABELS}\" y=\"{}\" class=\"foot\">{head}</text>\n</svg>",
        height - 8.0
    );
    svg
}
