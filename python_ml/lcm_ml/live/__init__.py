"""Near real time: files of an inbox to scores in the published snapshot, a cycle every few seconds."""
