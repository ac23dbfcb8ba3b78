"""Why believe a cell: traces, sensitivity, figures, attention maps, the report. Imports tables; never torch."""
