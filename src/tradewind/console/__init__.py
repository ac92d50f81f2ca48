"""What a person looks at: the report page, its brief, the check of the machine."""
