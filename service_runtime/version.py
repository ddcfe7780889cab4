"""The version of Sluicegate. The build reads it from here; images and clones know it without being installed."""

VERSION = "0.1.0"
