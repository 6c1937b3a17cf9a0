"""Pictures that people bring: looked at, agreed to, kept, shown."""
