// Loaded before a client's own code: the name of the server, which the AI SDK takes for a public one, is this machine.
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'

const lookup = dns.lookup
dns.lookup = (name, options, done) => lookup(name === 'reelworks.example' ? '127.0.0.1' : name, options, done)
syncBuiltinESMExports()
