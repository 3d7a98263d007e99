"""The signing service's protocol, and its client."""
