"""The asset panorama (资产全景): its schema, its rules, and how it is composed from documents of the views."""
