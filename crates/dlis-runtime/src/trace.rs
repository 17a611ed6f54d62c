//! Traces that Perfetto and Chrome open.

use serde_json::{Value, json};

/// One step of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Which run.
    pub run: usize,
    /// The layer.
    pub layer: String,
    /// What was computed.
    pub op: String,
    /// By what.
    pub kernel: String,
    /// Start, from the start of the trace.
    pub start_ns: u64,
    /// Duration.
    pub duration_ns: u64,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// The events in the Trace Event Format ("complete" events, times in microseconds), which
/// `ui.perfetto.dev` and `chrome://tracing` open.
pub fn chrome_trace(network: &str, events: &[TraceEvent]) -> Value {
    let micros = |ns: u64| ns as f64 / 1e3;
    let steps = events.iter().map(|event| {
        json!({
            "name": event.layer,
            "cat": event.kernel,
            "ph": "X",
            "ts": micros(event.start_ns),
            "dur": micros(event.duration_ns),
            "pid": 1,
            "tid": 1,
            "args": {
                "op": event.op,
                "kernel": event.kernel,
                "run": event.run,
                "macs": event.macs,
                "gflop_per_s": 2.0 * event.macs as f64 / event.duration_ns.max(1) as f64,
            },
        })
    });
    let name = json!({ "name": "process_name", "ph": "M", "pid": 1, "args": { "name": network } });
    json!({ "displayTimeUnit": "ns", "traceEvents": std::iter::once(name).chain(steps).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_microseconds() {
        let (layer, op, kernel) = ("conv1".to_owned(), "conv2d 3x3".to_owned(), "a/b/c/d/e".to_owned());
        let event = TraceEvent { run: 0, layer, op, kernel, start_ns: 1500, duration_ns: 2000, macs: 1000 };
        let trace = chrome_trace("net", &[event]);
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events[0]["args"]["name"], "net");
        assert_eq!(events[1]["ts"], 1.5);
        assert_eq!(events[1]["dur"], 2.0);
        assert_eq!(events[1]["args"]["gflop_per_s"], 1.0);
    }
}
