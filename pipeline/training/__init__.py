"""From public data to weights: one module and one command a stage. Never imported by the product."""
