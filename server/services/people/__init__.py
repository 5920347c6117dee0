"""Who somebody is and how they come in: accounts, invitations, links, identities elsewhere, and how they like the pages."""
