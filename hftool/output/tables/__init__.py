"""What a person sees: tables, bars and colours, through rich."""
