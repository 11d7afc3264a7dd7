// Milepost from Node: report a milestone, and read a journal from where one stood. Needs Node 18 and no package.
//
// usage: node recipes.mjs append LOGS < milestone.json    prints what became of it
//        node recipes.mjs read LOGS NAME [OFFSET]         prints the records from OFFSET on, then where to go on

import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'

const MARK_BYTES = 320

// Reports a milestone; give it an id of its own, and it is safe to do so again. Throws what is wrong; `temporary`
// says whether trying again may help. Never write into the journal yourself: that is milestone-emit's affair.
export function append(logs, milestone) {
  const input = JSON.stringify(milestone) + '\n'
  const run = spawnSync('milestone-emit', ['--logs', logs, '-'], { input, encoding: 'utf8' })
  if (run.error) throw run.error
  if (run.status !== 0) {
    throw Object.assign(new Error(run.stderr.trim()), { temporary: [69, 74, 75].includes(run.status) })
  }
  return JSON.parse(run.stdout).status
}

function bytesOf(path, at, length) {
  const file = openSync(path)
  try {
    const bytes = Buffer.alloc(length)
    let got = 0
    for (let read = 1; got < length && read > 0; got += read) read = readSync(file, bytes, got, length - got, at + got)
    return bytes.subarray(0, got)
  } finally {
    closeSync(file)
  }
}

// Where the active file begins and how much of it is surely on disk. What lies beyond may still go away.
function markOf(logs, name) {
  const { base, length } = JSON.parse(bytesOf(join(logs, '.lock', `${name}.lock`), 0, MARK_BYTES).toString())
  return { base, end: base + length }
}

// The records of a journal from a logical offset on, and the offset after them. No lock is needed. Offsets count bytes
// since the journal began, over all its files, so they stay right when it goes on in a new one.
export function read(logs, name, offset = 0) {
  for (;;) {
    const { base, end } = markOf(logs, name)
    const closed = readdirSync(logs).filter((it) => it.startsWith(`${name}.`) && /^\.\d{20}\.jsonl$/.test(it.slice(name.length)))
    const files = new Map(closed.map((it) => [Number(it.slice(name.length + 1, -6)), it]))
    files.set(base, `${name}.jsonl`)
    const sorted = [...files].sort(([a], [b]) => a - b)
    const pieces = []
    let at = offset
    try {
      for (const [index, [start, file]] of sorted.entries()) {
        const stop = sorted[index + 1]?.[0] ?? end
        if (start <= at && at < stop) {
          const piece = bytesOf(join(logs, file), at - start, stop - at)
          pieces.push(piece)
          at += piece.length
        }
      }
    } catch (error) {
      if (error.code === 'ENOENT') continue
      throw error
    }
    // Between the two looks it may have gone on in a new file.
    if (markOf(logs, name).base !== base) continue
    const lines = Buffer.concat(pieces).toString().split('\n').filter((it) => it)
    return { records: lines.map((it) => JSON.parse(it)), after: at }
  }
}

const [command, logs, name, offset] = process.argv.slice(2)
if (command === 'append') {
  console.log(append(logs, JSON.parse(readFileSync(0, 'utf8'))))
} else if (command === 'read') {
  const { records, after } = read(logs, name, Number(offset ?? 0))
  for (const record of records) console.log(JSON.stringify(record))
  console.log(after)
}
