//! The figures as pictures, for those who would rather look than read.

use std::fmt::Write;

use super::report::Report;

const WIDTH: f64 = 760.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 150.0;
const LONGEST: f64 = 430.0;
const BAR: f64 = 16.0;

const INK: &str = "#1f2933";
const SHOP: &str = "#0b4f8a";
const PEER: &str = "#e8a33d";
const POSTGRES: &str = "#3c8dc5";
const GENERATOR: &str = "#cbd2d9";

/// The shop's requests a second in those of its peer, one scale for all. What is drawn is what
/// the table calls the ratio: the median of the rounds' ratios, which the medians of both sides
/// need not have.
pub fn throughput(report: &Report) -> String {
    let mut drawing = Drawing::new(
        "Requests a second: the shop over HTTP, in those of pgbench on the same tables",
        &[("merch-store", SHOP), ("pgbench", PEER)],
    );
    let compared: Vec<_> = report
        .named("ratio")
        .filter_map(|ratio| {
            let shop = report.find(&ratio.scenario, "shop")?;
            let peer = report.find(&ratio.scenario, "pgbench")?;
            Some((ratio, shop.median, peer.median))
        })
        .collect();
    let longest = compared.iter().map(|(ratio, ..)| ratio.median).fold(1.0, f64::max);
    for (ratio, shop, peer) in compared {
        drawing.name(&ratio.scenario);
        let text = format!("{:.1} x ({shop:.0} a second)", ratio.median);
        drawing.bar(&[(ratio.median / longest, SHOP)], &text);
        drawing.bar(&[(1.0 / longest, PEER)], &format!("1 ({peer:.0} a second)"));
        drawing.gap();
    }
    drawing.finish()
}

/// Processor time a request: the shop's, PostgreSQL's, the load generator's.
pub fn processor(report: &Report) -> String {
    let mut drawing = Drawing::new(
        "Processor time a request, in microseconds",
        &[("merch-store", SHOP), ("PostgreSQL", POSTGRES), ("load generator", GENERATOR)],
    );
    let rows: Vec<(&str, [f64; 3])> = report
        .named("shop's processor time a request")
        .filter_map(|shop| {
            let other = |what| Some(report.find(&shop.scenario, what)?.median);
            let parts = [shop.median, other("PostgreSQL's")?, other("load generator's")?];
            Some((shop.scenario.as_str(), parts))
        })
        .collect();
    let longest = rows.iter().map(|(_, parts)| parts.iter().sum()).fold(1.0, f64::max);
    for (scenario, parts) in rows {
        drawing.name(scenario);
        let [shop, postgres, generator] = parts;
        let bars = [
            (shop / longest, SHOP),
            (postgres / longest, POSTGRES),
            (generator / longest, GENERATOR),
        ];
        drawing.bar(&bars, &format!("{shop:.0} + {postgres:.0} + {generator:.0}"));
        drawing.gap();
    }
    drawing.finish()
}

/// Processor time a request of the gateway, beside that of nginx and HAProxy.
pub fn gateway(report: &Report) -> String {
    const PROXIES: [(&str, &str); 3] = [("gateway", SHOP), ("nginx", PEER), ("HAProxy", GENERATOR)];
    let mut drawing =
        Drawing::new("Processor time to pass a request on, in microseconds", &PROXIES);
    let time = |scenario: &str, proxy: &str| {
        report.find(scenario, &format!("{proxy}'s processor time a request")).map(|it| it.median)
    };
    let scenarios: Vec<&str> =
        report.named("gateway's processor time").map(|it| it.scenario.as_str()).collect();
    let times = |scenario: &str| PROXIES.map(|(proxy, _)| time(scenario, proxy).unwrap_or(0.0));
    let longest = scenarios.iter().flat_map(|it| times(it)).fold(1.0, f64::max);
    for scenario in scenarios {
        drawing.name(scenario);
        for (time, (_, colour)) in times(scenario).into_iter().zip(PROXIES) {
            drawing.bar(&[(time / longest, colour)], &format!("{time:.1}"));
        }
        drawing.gap();
    }
    drawing.finish()
}

/// An SVG that grows downwards.
struct Drawing {
    shapes: String,
    bottom: f64,
}

impl Drawing {
    fn new(title: &str, legend: &[(&str, &str)]) -> Drawing {
        let mut drawing = Drawing { shapes: String::new(), bottom: 28.0 };
        drawing.text(16.0, 28.0, "start", "bold", title);
        drawing.bottom += 24.0;
        let mut left = 16.0;
        for (name, colour) in legend {
            let top = drawing.bottom - 11.0;
            drawing.rectangle(left, top, 12.0, 12.0, colour);
            drawing.text(left + 18.0, drawing.bottom, "start", "normal", name);
            left += 30.0 + 8.0 * name.len() as f64;
        }
        drawing.bottom += 20.0;
        drawing
    }

    /// Names the bars that follow.
    fn name(&mut self, name: &str) {
        self.text(LEFT - 10.0, self.bottom + BAR - 4.0, "end", "normal", name);
    }

    /// A bar of parts, each a share of the longest bar, and what stands behind it.
    fn bar(&mut self, parts: &[(f64, &str)], text: &str) {
        let mut left = LEFT;
        for (share, colour) in parts {
            self.rectangle(left, self.bottom, share * LONGEST, BAR, colour);
            left += share * LONGEST;
        }
        self.text(left + 8.0, self.bottom + BAR - 4.0, "start", "normal", text);
        self.bottom += BAR + 3.0;
    }

    fn gap(&mut self) {
        self.bottom += 12.0;
    }

    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        writeln!(
            self.shapes,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
        )
        .expect("a string takes everything");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
        writeln!(
            self.shapes,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>"#
        )
        .expect("a string takes everything");
    }

    fn finish(self) -> String {
        let height = self.bottom + 8.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\" \
             fill=\"{INK}\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.shapes
        )
    }
}
