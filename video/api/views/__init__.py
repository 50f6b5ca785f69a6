"""The views of the API, a module an area: they check, call an action or a figure, and answer in the envelope."""
