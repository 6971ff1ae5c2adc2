"""What a run tells the outside while it lasts: ids in every log line, a metrics file, OpenTelemetry where asked for."""
