// Talks to a YAML language server as an editor does (the Language Server
// Protocol, over its standard input and output): opens each file of
// FOLDER/files, with FOLDER/schema.json as its schema, and wants no diagnostics.
// A file that is wrong on purpose must have some.
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const path = require('path')
const { pathToFileURL } = require('url')

const folder = process.argv[2]
const server = spawn(process.execPath, [path.join(folder, 'server/node_modules/yaml-language-server/bin/yaml-language-server'), '--stdio'],
  { stdio: ['pipe', 'pipe', 'inherit'] })

const settings = {
  yaml: {
    validate: true, hover: true, completion: true, schemaStore: { enable: false },
    schemas: { [pathToFileURL(path.join(folder, 'schema.json')).href]: '*.yaml' }
  }
}

let last = 0
const answers = new Map()
const diagnostics = new Map() // by URI: who waits for them

function send (message) {
  const text = JSON.stringify({ jsonrpc: '2.0', ...message })
  server.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`)
}

function request (method, params) {
  const id = ++last
  send({ id, method, params })
  return new Promise((resolve, reject) => answers.set(id, { resolve, reject }))
}

function receive (m) {
  if (m.method === 'workspace/configuration') {
    send({ id: m.id, result: m.params.items.map(i => settings[i.section] ?? null) })
  } else if (m.method === 'textDocument/publishDiagnostics') {
    diagnostics.get(m.params.uri)?.(m.params.diagnostics)
  } else if (m.method && m.id !== undefined) {
    send({ id: m.id, result: null })
  } else if (answers.has(m.id)) {
    const { resolve, reject } = answers.get(m.id)
    answers.delete(m.id)
    m.error ? reject(new Error(m.error.message)) : resolve(m.result)
  }
}

let buffer = Buffer.alloc(0)
server.stdout.on('data', data => {
  buffer = Buffer.concat([buffer, data])
  for (;;) {
    const end = buffer.indexOf('\r\n\r\n')
    if (end < 0) return
    const length = Number(/Content-Length: (\d+)/i.exec(buffer.subarray(0, end).toString())[1])
    if (buffer.length < end + 4 + length) return
    const text = buffer.subarray(end + 4, end + 4 + length).toString()
    buffer = buffer.subarray(end + 4 + length)
    receive(JSON.parse(text))
  }
})
server.on('exit', code => fail(`the language server ended with ${code}`))

function fail (why) {
  console.error(why)
  server.kill()
  process.exit(1)
}

// open gives a file's diagnostics: the first that the server publishes for it.
function open (name, text) {
  const uri = pathToFileURL(path.join(folder, 'files', name)).href
  const said = new Promise(resolve => diagnostics.set(uri, resolve))
  send({ method: 'textDocument/didOpen', params: { textDocument: { uri, languageId: 'yaml', version: 1, text } } })
  return said
}

async function main () {
  const root = pathToFileURL(path.join(folder, 'files')).href
  await request('initialize', {
    processId: process.pid, rootUri: root, workspaceFolders: [{ uri: root, name: 'files' }],
    capabilities: { workspace: { configuration: true }, textDocument: { publishDiagnostics: {}, hover: { contentFormat: ['markdown'] } } }
  })
  send({ method: 'initialized', params: {} })
  send({ method: 'workspace/didChangeConfiguration', params: { settings } })

  const wrong = 'clusters:\n  lan:\n    stations:\n      a:\n        writable: tape\n        adress: 10.0.0.1\n'
  const found = (await open('wrong.yaml', wrong)).map(d => d.range.start.line + 1)
  if (!found.includes(5) || !found.includes(6)) fail(`of the wrong file the server finds lines ${found}, want 5 and 6: it has no schema`)

  let bad = 0
  const files = fs.readdirSync(path.join(folder, 'files')).filter(f => f.endsWith('.yaml'))
  for (const name of files) {
    const text = fs.readFileSync(path.join(folder, 'files', name), 'utf8')
    for (const d of (await open(name, text)).filter(d => !d.tags?.includes(1))) { // 1: not needed, as an anchor nobody names
      bad++
      console.error(`${name}:${d.range.start.line + 1}:${d.range.start.character + 1}: ${d.message}\n  ${text.split('\n')[d.range.start.line]}`)
    }
  }
  if (bad > 0) fail(`${bad} problems in ${files.length} files`)

  const uri = pathToFileURL(path.join(folder, 'files/wrong.yaml')).href
  const hover = await request('textDocument/hover', { textDocument: { uri }, position: { line: 4, character: 10 } })
  if (!JSON.stringify(hover).includes("Where the station's writes go")) fail(`pointing at a key shows ${JSON.stringify(hover)}`)
  console.log(`${files.length} files: the language server finds nothing wrong`)
  server.removeAllListeners('exit')
  server.kill()
}

main().catch(err => fail(err.stack))
setTimeout(() => fail('the language server does not answer'), 240000).unref()
