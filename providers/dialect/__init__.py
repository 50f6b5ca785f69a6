"""What a provider's dialect is written with: how the simulator speaks the provider's protocol.

It is beside the simulator and not in it, so that imports have one direction: the simulator knows the registry, the
registry knows the providers' folders, and their dialects know this package only.
"""
