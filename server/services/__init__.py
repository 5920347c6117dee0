"""One module a subject; the same stems stand in models, services, routes and templates."""
